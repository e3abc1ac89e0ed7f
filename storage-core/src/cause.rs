//! The causes behind an error, as a list and as one line of text.

use std::{error::Error, io, iter};

/// The error and all its causes, outermost first. An I/O error skips the error it wraps in its own `source`; that one is
/// part of this list.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |now| {
        let now: &'a (dyn Error + 'static) = *now;
        match now.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => now.source(),
        }
    })
}

/// The whole chain in one line, `outer: inner: innermost`, because many errors tell only what failed and not why. A cause
/// whose text its outer error ends with is left out.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    causes(error).fold(String::new(), |said, cause| match plain(cause) {
        text if said.is_empty() => text,
        text if said.ends_with(&text) => said,
        text => format!("{said}: {text}"),
    })
}

/// The text of one cause, without what only the authors of a library can use: rustls ends the text for a connection that
/// broke off with a link to its own documentation.
#[must_use]
pub fn plain(cause: &(dyn Error + 'static)) -> String {
    let broke_off = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    match cause.downcast_ref::<io::Error>() {
        Some(error) if broke_off(error) => "the connection broke off".to_owned(),
        _ => {
            let text = cause.to_string();
            text.split(": https://docs.rs/").next().unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it ended yesterday")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("cannot send")]
        Outer(#[source] io::Error),
        #[error("the certificate is not trusted")]
        Middle(#[source] Inner),
    }

    fn wrapped() -> Layer {
        let middle = Layer::Middle(Inner);
        Layer::Outer(io::Error::other(io::Error::other(middle)))
    }

    #[test]
    fn what_an_io_error_wraps_is_among_the_causes() {
        let error = wrapped();
        assert!(causes(&error).any(|cause| matches!(cause.downcast_ref(), Some(Layer::Middle(_)))));
        assert!(causes(&error).any(|cause| cause.is::<Inner>()));
    }

    #[test]
    fn a_link_to_the_documentation_of_a_library_is_left_out() {
        let said =
            "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/manual";
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::Other] {
            assert!(!explain(&io::Error::new(kind, said)).contains("docs.rs"), "{kind}");
        }
    }

    #[test]
    fn each_cause_is_in_the_text_once() {
        assert_eq!(explain(&wrapped()), "cannot send: the certificate is not trusted: it ended yesterday");
        assert_eq!(explain(&io::Error::from(io::ErrorKind::NotFound)), "entity not found");
    }
}
