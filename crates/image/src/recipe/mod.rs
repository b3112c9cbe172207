//! Recipes: the definition of a template, and the things it is made from.

mod builtin;
pub(crate) mod debian;
pub(crate) mod definition;
mod foreign;
pub(crate) mod resolve;
pub(crate) mod wheel;
