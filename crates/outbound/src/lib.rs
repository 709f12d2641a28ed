//! What all that ISK asks over the network needs: HTTP clients that trust whom they should, and secrets that are renewed.

mod authorities;
mod secret;

pub use authorities::{Authorities, NoClient};
pub use secret::{Secret, SecretFile};
