//! One binary for all integration tests.

mod dumps;
mod map;
mod one_way;
mod registered;
