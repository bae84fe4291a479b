//! Members from the outside: one alone, or several over a network in memory. They begin, answer, stop, and go on where
//! they were.

mod cluster;
mod cluster_world;
mod defragment;
mod held_disk;
mod install;
mod life;
mod lives;
mod load;
mod points;
mod refusals;
mod snapshots;
mod space;
mod turns;
mod world;
