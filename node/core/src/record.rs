//! Documents: entry, content, publication and the one door that releases them.
