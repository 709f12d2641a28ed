//! What all that ISK asks over the network needs: HTTP clients that trust whom they should, secrets that are renewed, and
//! errors that say why.

mod authorities;
mod secret;

pub use authorities::{Authorities, NoClient};
pub use secret::{Secret, SecretFile};

/// An error with its causes: the text of the HTTP libraries stops at the first. A cause that the text ends with already is
/// not said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
