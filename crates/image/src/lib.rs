//! Whole-disk images: built from Debian packages, imported from files, uploaded through the EBS direct API.
