//! Questions and answers between organisations: find, fan out, open, retrieve, serve.
