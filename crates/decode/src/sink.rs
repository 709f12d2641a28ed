//! Columns being filled: like Arrow's builders, but they can be cut back to an earlier row.

use std::sync::Arc;

use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow_buffer::{NullBuffer, NullBufferBuilder};
use arrow_schema::{ArrowError, DataType, Fields};

use crate::error::{Fault, Read};
use crate::vectors::{Binaries, Booleans, FixedBytes, Numbers, Offsets, Texts, nulls};

/// One column, and the columns nested in it.
pub(crate) enum Sink {
    Boolean(Booleans),
    Int(Numbers<i32>),
    Long(Numbers<i64>),
    Float(Numbers<f32>),
    Double(Numbers<f64>),
    Decimal(Numbers<i128>),
    Text(Texts),
    Binary(Binaries),
    Fixed(FixedBytes),
    List(Lists),
    Map(Maps),
    Struct(Structs),
}

pub(crate) struct Lists {
    ends: Offsets,
    nulls: NullBufferBuilder,
    pub element: Box<Sink>,
}

pub(crate) struct Maps {
    ends: Offsets,
    nulls: NullBufferBuilder,
    pub keys: Texts,
    pub values: Box<Sink>,
}

pub(crate) struct Structs {
    nulls: NullBufferBuilder,
    pub columns: Vec<Sink>,
}

impl Lists {
    /// Ends the row: all elements since the last row are its.
    pub(crate) fn end(&mut self) -> Read<()> {
        self.ends.push(self.element.len())?;
        self.nulls.append_non_null();
        Ok(())
    }
}

impl Maps {
    /// Ends the row: all entries since the last row are its.
    pub(crate) fn end(&mut self) -> Read<()> {
        self.ends.push(self.values.len())?;
        self.nulls.append_non_null();
        Ok(())
    }
}

/// How many keys are compared each with each; more are sorted.
const FEW_KEYS: usize = 8;

impl Maps {
    /// Ends the row, whose keys must differ.
    pub(crate) fn end_distinct(&mut self) -> Read<()> {
        let rows = self.ends.last()..self.keys.len();
        let twice = if rows.len() <= FEW_KEYS {
            let mut pairs = rows.clone().flat_map(|i| (rows.start..i).map(move |j| (i, j)));
            pairs
                .find(|(i, j)| self.keys.get(*i) == self.keys.get(*j))
                .map(|(i, _)| self.keys.get(i))
        } else {
            let mut keys: Vec<&[u8]> = rows.map(|i| self.keys.get(i)).collect();
            keys.sort_unstable();
            keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        };
        if let Some(key) = twice {
            let key = String::from_utf8_lossy(key).into_owned();
            return Err(Fault::new("an object has it twice").within(&key));
        }
        self.end()
    }
}

impl Structs {
    /// Ends the row, each column of which has been given a value.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.nulls.append_non_null();
    }

    /// Ends the row, of which this column alone has been given a value.
    pub(crate) fn end_beside(&mut self, column: usize) {
        for (at, sink) in self.columns.iter_mut().enumerate() {
            if at != column {
                sink.null();
            }
        }
        self.end();
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Hands over each column by itself; nulls of whole rows are in the columns too.
    fn finish_columns(&mut self, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
        self.nulls.finish();
        let pairs = self.columns.iter_mut().zip(fields);
        pairs.map(|(column, field)| column.finish(field.data_type())).collect()
    }
}

/// A plan met a column it does not belong to: a defect, which fails the record and no more.
#[cold]
pub(crate) fn unfit() -> Fault {
    Fault::new("the value does not fit its column (a defect of the decoder)")
}

impl Sink {
    /// An empty column of an Arrow type, or `None` where no table has such a type.
    pub(crate) fn new(ty: &DataType) -> Option<Self> {
        Some(match ty {
            DataType::Boolean => Self::Boolean(Booleans::new()),
            DataType::Int32 | DataType::Date32 => Self::Int(Numbers::new()),
            DataType::Int64 | DataType::Time64(_) | DataType::Timestamp(..) => {
                Self::Long(Numbers::new())
            }
            DataType::Float32 => Self::Float(Numbers::new()),
            DataType::Float64 => Self::Double(Numbers::new()),
            DataType::Decimal128(..) => Self::Decimal(Numbers::new()),
            DataType::Utf8 => Self::Text(Texts::new()),
            DataType::LargeBinary => Self::Binary(Binaries::new()),
            DataType::FixedSizeBinary(size) => {
                Self::Fixed(FixedBytes::new(usize::try_from(*size).ok()?))
            }
            DataType::List(element) => Self::List(Lists {
                ends: Offsets::new(),
                nulls: nulls(),
                element: Box::new(Self::new(element.data_type())?),
            }),
            DataType::Map(entries, _) => {
                let DataType::Struct(entry) = entries.data_type() else { return None };
                Self::Map(Maps {
                    ends: Offsets::new(),
                    nulls: nulls(),
                    keys: Texts::new(),
                    values: Box::new(Self::new(entry.get(1)?.data_type())?),
                })
            }
            DataType::Struct(fields) => Self::rows(fields)?,
            _ => return None,
        })
    }

    /// Empty columns of these fields, as those of one struct.
    pub(crate) fn rows(fields: &Fields) -> Option<Self> {
        let columns = fields.iter().map(|f| Self::new(f.data_type())).collect::<Option<_>>()?;
        Some(Self::Struct(Structs { nulls: nulls(), columns }))
    }

    /// Hands over the columns of a struct one by one, and starts again. Where the struct is null, they are.
    pub(crate) fn finish_rows(&mut self, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
        match self {
            Self::Struct(s) => s.finish_columns(fields),
            _ => Err(ArrowError::SchemaError("rows are no struct".to_owned())),
        }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Boolean(s) => s.len(),
            Self::Int(s) => s.len(),
            Self::Long(s) => s.len(),
            Self::Float(s) => s.len(),
            Self::Double(s) => s.len(),
            Self::Decimal(s) => s.len(),
            Self::Text(s) => s.len(),
            Self::Binary(s) => s.len(),
            Self::Fixed(s) => s.len(),
            Self::List(s) => s.nulls.len(),
            Self::Map(s) => s.nulls.len(),
            Self::Struct(s) => s.nulls.len(),
        }
    }

    /// Appends a null row.
    pub(crate) fn null(&mut self) {
        match self {
            Self::Boolean(s) => s.null(),
            Self::Int(s) => s.null(),
            Self::Long(s) => s.null(),
            Self::Float(s) => s.null(),
            Self::Double(s) => s.null(),
            Self::Decimal(s) => s.null(),
            Self::Text(s) => s.null(),
            Self::Binary(s) => s.null(),
            Self::Fixed(s) => s.null(),
            Self::List(s) => {
                s.ends.repeat_last();
                s.nulls.append_null();
            }
            Self::Map(s) => {
                s.ends.repeat_last();
                s.nulls.append_null();
            }
            Self::Struct(s) => s.null(),
        }
    }

    /// Forgets all rows past the first `rows`, and what an unfinished row has left.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match self {
            Self::Boolean(s) => s.truncate(rows),
            Self::Int(s) => s.truncate(rows),
            Self::Long(s) => s.truncate(rows),
            Self::Float(s) => s.truncate(rows),
            Self::Double(s) => s.truncate(rows),
            Self::Decimal(s) => s.truncate(rows),
            Self::Text(s) => s.truncate(rows),
            Self::Binary(s) => s.truncate(rows),
            Self::Fixed(s) => s.truncate(rows),
            Self::List(s) => {
                let end = s.ends.truncate(rows);
                s.nulls.truncate(rows);
                s.element.truncate(end);
            }
            Self::Map(s) => {
                let end = s.ends.truncate(rows);
                s.nulls.truncate(rows);
                s.keys.truncate(end);
                s.values.truncate(end);
            }
            Self::Struct(s) => s.truncate(rows),
        }
    }

    /// Hands over the rows as an array of the type the column was made for, and starts again.
    pub(crate) fn finish(&mut self, ty: &DataType) -> Result<ArrayRef, ArrowError> {
        Ok(match (self, ty) {
            (Self::Boolean(s), _) => Arc::new(s.finish()),
            (Self::Int(s), DataType::Date32) => Arc::new(s.finish::<Date32Type>()?),
            (Self::Int(s), _) => Arc::new(s.finish::<Int32Type>()?),
            (Self::Long(s), DataType::Time64(_)) => Arc::new(s.finish::<Time64MicrosecondType>()?),
            (Self::Long(s), DataType::Timestamp(_, zone)) => {
                let array = s.finish::<TimestampMicrosecondType>()?;
                Arc::new(array.with_timezone_opt(zone.clone()))
            }
            (Self::Long(s), _) => Arc::new(s.finish::<Int64Type>()?),
            (Self::Float(s), _) => Arc::new(s.finish::<Float32Type>()?),
            (Self::Double(s), _) => Arc::new(s.finish::<Float64Type>()?),
            (Self::Decimal(s), DataType::Decimal128(precision, scale)) => {
                let array = s.finish::<Decimal128Type>()?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            (Self::Text(s), _) => Arc::new(s.finish()?),
            (Self::Binary(s), _) => Arc::new(s.finish()?),
            (Self::Fixed(s), DataType::FixedSizeBinary(size)) => Arc::new(s.finish(*size)?),
            (Self::List(s), DataType::List(field)) => {
                let element = s.element.finish(field.data_type())?;
                let nulls = s.nulls.finish();
                Arc::new(ListArray::try_new(field.clone(), s.ends.finish(), element, nulls)?)
            }
            (Self::Map(s), DataType::Map(field, sorted)) => {
                let DataType::Struct(fields) = field.data_type() else { return Err(mismatch(ty)) };
                let value = fields.get(1).ok_or_else(|| mismatch(ty))?;
                let values = s.values.finish(value.data_type())?;
                let columns: Vec<ArrayRef> = vec![Arc::new(s.keys.finish()?), values];
                let entries = StructArray::try_new(fields.clone(), columns, None)?;
                let nulls = s.nulls.finish();
                let ends = s.ends.finish();
                Arc::new(MapArray::try_new(field.clone(), ends, entries, nulls, *sorted)?)
            }
            (Self::Struct(s), DataType::Struct(fields)) => {
                let nulls: Option<NullBuffer> = s.nulls.finish();
                let columns = s.finish_columns(fields)?;
                Arc::new(StructArray::try_new(fields.clone(), columns, nulls)?)
            }
            _ => return Err(mismatch(ty)),
        })
    }
}

impl Structs {
    fn null(&mut self) {
        self.columns.iter_mut().for_each(Sink::null);
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.nulls.truncate(rows);
    }
}

fn mismatch(ty: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("a column was not made for the type {ty}"))
}
