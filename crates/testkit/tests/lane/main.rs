//! Lanes on clouds and machines that are made up: the whole way, every fault at every call, and
//! what users do wrong.

mod faults;
mod setting;
mod trouble;
mod whole;
