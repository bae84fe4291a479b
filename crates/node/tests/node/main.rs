//! A lone member from the outside: it begins, answers, stops, and goes on where it was.

mod defragment;
mod life;
mod lives;
mod load;
mod points;
mod refusals;
mod world;
