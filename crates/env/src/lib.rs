//! The outside world as traits.
