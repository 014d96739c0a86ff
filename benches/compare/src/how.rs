//! How good an answer has to be.

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Linearizable. All of etcd's writes are.
    Strong,
    /// Elea: weak. etcd: a serializable read.
    Weak,
}
