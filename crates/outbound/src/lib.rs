//! What all that ISK asks over the network needs: HTTP clients that trust whom they should.

mod authorities;

pub use authorities::{Authorities, NoClient};
