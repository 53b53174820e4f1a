//! AWS request and response types with their codecs, generated from the service models.
