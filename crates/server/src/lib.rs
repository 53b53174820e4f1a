//! The HTTP edge: authentication, dispatch, error encoding.
