//! Index records of this node and the replicas it holds for others.
