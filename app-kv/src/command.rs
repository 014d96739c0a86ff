//! Commands as the client library takes them: bytes out, a typed answer back in.

use bytes::Bytes;
use elea_protocol::application::{Command, Undecodable};
use elea_protocol::codec::{self, FRAME_MAX};

use crate::cost;
use crate::operation::Operation;
use crate::outcome::{
    Added, Answer, Appended, Counted, Found, MemberList, Outcome, Page, Refused, Removed, Swap,
    TxnOutcome, Version,
};
use crate::step::{Add, Append, Cas, Delete, Get, Incr, Members, Put, Remove, Scan, Step};
use crate::txn::Txn;

impl Command for Operation {
    type Output = Answer;

    /// An operation that is too large for any frame is encoded as that many bytes of nothing: the
    /// client library refuses it for its size, which is what is wrong with it.
    fn encode(&self) -> Bytes {
        codec::encode(self).unwrap_or_else(|_| vec![0; FRAME_MAX + 1].into())
    }

    fn is_bulk(&self) -> bool {
        cost::is_bulk(self)
    }

    fn only_reads(&self) -> bool {
        match self {
            Self::Step(step) => step.only_reads(),
            Self::Txn(txn) => txn.only_reads(),
        }
    }

    fn decode(&self, result: &Bytes) -> Result<Answer, Undecodable> {
        let answer = Answer::decode(result)?;
        match (self, &answer) {
            (Self::Step(_), Answer::Txn(_)) | (Self::Txn(_), Answer::Step(_)) => Err(Undecodable),
            _ => Ok(answer),
        }
    }
}

impl Command for Txn {
    type Output = Result<TxnOutcome, Refused>;

    fn encode(&self) -> Bytes {
        Operation::Txn(self.clone()).encode()
    }

    fn is_bulk(&self) -> bool {
        Operation::Txn(self.clone()).is_bulk()
    }

    fn only_reads(&self) -> bool {
        self.then.iter().chain(&self.otherwise).all(Step::only_reads)
    }

    fn decode(&self, result: &Bytes) -> Result<Self::Output, Undecodable> {
        match Answer::decode(result)? {
            Answer::Txn(outcome) => Ok(Ok(outcome)),
            Answer::Refused(refused) => Ok(Err(refused)),
            Answer::Step(_) => Err(Undecodable),
        }
    }
}

macro_rules! commands {
    ($($command:ident -> $output:ty;)*) => {$(
        impl Command for $command {
            type Output = Result<$output, Refused>;

            fn encode(&self) -> Bytes {
                Operation::Step(Step::$command(self.clone())).encode()
            }

            fn is_bulk(&self) -> bool {
                Operation::Step(Step::$command(self.clone())).is_bulk()
            }

            fn only_reads(&self) -> bool {
                Step::$command(self.clone()).only_reads()
            }

            fn decode(&self, result: &Bytes) -> Result<Self::Output, Undecodable> {
                match Answer::decode(result)? {
                    Answer::Step(Outcome::$command(output)) => Ok(Ok(output)),
                    Answer::Refused(refused) => Ok(Err(refused)),
                    _ => Err(Undecodable),
                }
            }
        }
    )*};
}
commands! {
    Get -> Option<Found>;
    Put -> Version;
    Delete -> Option<Version>;
    Cas -> Swap;
    Incr -> Counted;
    Append -> Appended;
    Add -> Added;
    Remove -> Removed;
    Members -> MemberList;
    Scan -> Page;
}
