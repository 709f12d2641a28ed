//! Records that readers meet and that do not fit the columns a topic was found to have: they have members without a
//! column, or do not decode. A few of each file are looked at, so that the next columns have them.

use arrow_array::Array;
use isk_decode::{DecodedBatch, RecordPart};
use isk_model::RecordBlock;
use isk_schema::{Kind, Logical, TableSchema, ValueKind};

use crate::discovery::{Discovery, Sample};

/// How many records of a file are looked at.
const MOST: usize = 32;

/// The values of such records.
pub(crate) struct Notice {
    /// The place of the column of what has no other.
    rest: Option<usize>,
    values: Vec<Vec<u8>>,
}

impl Notice {
    /// For files of a table whose columns were discovered.
    pub(crate) fn of(table: &TableSchema) -> Option<Self> {
        let ValueKind::Bare(_, ty) = &table.value else { return None };
        if !Discovery::gave(table.version.value) {
            return None;
        }
        let rest = match &ty.kind {
            Kind::Record(record) => {
                record.fields.iter().position(|field| field.ty.logical == Some(Logical::Rest))
            }
            _ => None,
        };
        Some(Self { rest, values: Vec::new() })
    }

    /// Looks through a block and what came of it.
    pub(crate) fn look(&mut self, block: &RecordBlock, decoded: &DecodedBatch) {
        let failed = decoded.failures.iter().filter(|failure| failure.part == RecordPart::Value);
        let failed = failed.map(|failure| failure.row);
        let rest = self.rest.map(|at| decoded.batch.column(at));
        let more = rest.filter(|column| column.null_count() < column.len());
        let more = more
            .into_iter()
            .flat_map(|column| (0..column.len()).filter(|&row| column.is_valid(row)));
        for row in failed.chain(more) {
            if self.values.len() >= MOST {
                return;
            }
            let value = block.get(row).and_then(|record| record.value);
            self.values.extend(value.map(<[u8]>::to_vec));
        }
    }

    /// What was seen, if anything was.
    pub(crate) fn finish(self) -> Option<Sample> {
        let values = self.values.iter().map(|value| Some(value.as_slice()));
        (!self.values.is_empty()).then(|| Sample::of(values))
    }
}
