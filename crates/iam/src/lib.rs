//! SigV4 signing and verification, access keys.
