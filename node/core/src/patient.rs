//! The patient index: normalise, block, compare, link, unlink, merge.
