//! Carrying out a plan: from a payload's bytes into columns.

use crate::cursor::Cursor;
use crate::error::{FailureStage, Fault, Read};
use crate::plan::{ElementPlan, Plan, RecordPlan, Step, Wire};
use crate::sink::{Sink, Structs, unfit};

/// Reads one value and appends it to `sink`. On a fault `sink` may hold part of a row.
pub(crate) fn run(plan: &Plan, cur: &mut Cursor<'_>, sink: &mut Sink) -> Read<()> {
    match (plan, sink) {
        (Plan::Long, Sink::Long(s)) => s.push(cur.long()?),
        (Plan::Int, Sink::Int(s)) => s.push(cur.int()?),
        (Plan::Text, Sink::Text(s)) => s.push(text(cur)?)?,
        (Plan::Union(branches), sink) => {
            let index = cur.index(branches.len(), "union branch")?;
            return run(&branches[index], cur, sink);
        }
        (Plan::Null, sink) => sink.null(),
        (Plan::Record(plan), Sink::Struct(s)) => record(plan, cur, s)?,
        (Plan::Double(wire), Sink::Double(s)) => s.push(double(*wire, cur)?),
        (Plan::Float(wire), Sink::Float(s)) => s.push(float(*wire, cur)?),
        (Plan::Boolean, Sink::Boolean(s)) => s.push(cur.boolean()?),
        (Plan::IntToLong, Sink::Long(s)) => s.push(i64::from(cur.int()?)),
        (Plan::Micros { wire, mul, div, time }, Sink::Long(s)) => {
            s.push(micros(*wire, *mul, *div, *time, cur)?);
        }
        (Plan::Binary, Sink::Binary(s)) => s.push(cur.bytes()?),
        (Plan::EmptyBinary, Sink::Binary(s)) => s.push(&[]),
        (Plan::Fixed(size), Sink::Fixed(s)) => s.push(cur.take(*size)?)?,
        (Plan::Enum(symbols), Sink::Text(s)) => {
            let symbol = &symbols[cur.index(symbols.len(), "enum symbol")?];
            match &symbol.shown {
                Some(shown) => s.push(shown.as_bytes())?,
                None => {
                    return Err(Fault::conversion(format!(
                        "the table's schema knows no enum symbol {}, and has no default",
                        symbol.name
                    )));
                }
            }
        }
        (Plan::Decimal { size, precision, shift }, Sink::Decimal(s)) => {
            let bytes = match size {
                Some(size) => cur.take(*size)?,
                None => cur.bytes()?,
            };
            s.push(decimal(bytes, *precision, *shift)?);
        }
        (Plan::UuidText, Sink::Fixed(s)) => {
            let bytes = cur.bytes()?;
            let uuid = uuid::Uuid::try_parse_ascii(bytes)
                .map_err(|e| Fault::conversion(format!("a text is no uuid: {e}")))?;
            s.push(uuid.as_bytes())?;
        }
        (Plan::Json(plan), Sink::Text(s)) => s.push_with(|data| plan.run(cur, data))?,
        (Plan::Duration, Sink::Struct(s)) => {
            for column in &mut s.columns {
                let Sink::Long(part) = column else { return Err(unfit()) };
                part.push(i64::from(u32::from_le_bytes(cur.array()?)));
            }
            s.end();
        }
        (Plan::List(plan), Sink::List(s)) => {
            blocks(plan, cur, |cur| run(&plan.plan, cur, &mut s.element))?;
            s.end()?;
        }
        (Plan::Map(plan), Sink::Map(s)) => {
            blocks(plan, cur, |cur| {
                s.keys.push(text(cur)?)?;
                run(&plan.plan, cur, &mut s.values)
            })?;
            s.end()?;
        }
        (Plan::Present(skip), Sink::Boolean(s)) => {
            skip.run(cur)?;
            s.push(true);
        }
        // A whole row of a table without value columns.
        (Plan::Present(skip), Sink::Struct(s)) => {
            skip.run(cur)?;
            s.end();
        }
        (Plan::Branch { column, plan }, Sink::Struct(s)) => {
            for (i, sink) in s.columns.iter_mut().enumerate() {
                if i == *column {
                    run(plan, cur, sink)?;
                } else {
                    sink.null();
                }
            }
            s.end();
        }
        (Plan::Default { bytes, plan }, sink) => {
            cur.budget.charge_block(bytes.len() as u64)?;
            let mut inner = Cursor::new(bytes, cur.check_utf8, cur.budget.block);
            run(plan, &mut inner, sink)?;
            cur.budget.block = inner.budget.block;
        }
        (Plan::Refuse(reason), _) => {
            return Err(Fault::at(FailureStage::Resolution, reason.as_str()));
        }
        _ => return Err(unfit()),
    }
    Ok(())
}

fn record(plan: &RecordPlan, cur: &mut Cursor<'_>, s: &mut Structs) -> Read<()> {
    for step in &plan.steps {
        match step {
            Step::Read { column, name, plan } => {
                let sink = s.columns.get_mut(*column).ok_or_else(unfit)?;
                run(plan, cur, sink).map_err(|fault| fault.within(name))?;
            }
            Step::Skip(skip) => skip.run(cur)?,
        }
    }
    for (column, plan) in &plan.missing {
        run(plan, cur, s.columns.get_mut(*column).ok_or_else(unfit)?)?;
    }
    s.end();
    Ok(())
}

fn blocks<'a>(
    plan: &ElementPlan,
    cur: &mut Cursor<'a>,
    mut element: impl FnMut(&mut Cursor<'a>) -> Read<()>,
) -> Read<()> {
    loop {
        let count = cur.block(plan.min_size)?;
        if count == 0 {
            return Ok(());
        }
        cur.budget.charge(count, plan.cells)?;
        for _ in 0..count {
            element(cur)?;
        }
    }
}

#[inline(always)]
fn text<'a>(cur: &mut Cursor<'a>) -> Read<&'a [u8]> {
    let bytes = cur.bytes()?;
    if cur.check_utf8
        && let Err(e) = std::str::from_utf8(bytes)
    {
        return Err(Fault::new(format!("a text is not UTF-8: {e}")));
    }
    Ok(bytes)
}

#[expect(clippy::cast_precision_loss, reason = "Avro promotes so")]
fn float(wire: Wire, cur: &mut Cursor<'_>) -> Read<f32> {
    Ok(match wire {
        Wire::Int => cur.int()? as f32,
        Wire::Long => cur.long()? as f32,
        Wire::Float | Wire::Double => f32::from_le_bytes(cur.array()?),
    })
}

#[expect(clippy::cast_precision_loss, reason = "Avro promotes so")]
fn double(wire: Wire, cur: &mut Cursor<'_>) -> Read<f64> {
    Ok(match wire {
        Wire::Int => f64::from(cur.int()?),
        Wire::Long => cur.long()? as f64,
        Wire::Float => f64::from(f32::from_le_bytes(cur.array()?)),
        Wire::Double => f64::from_le_bytes(cur.array()?),
    })
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

fn micros(wire: Wire, mul: i64, div: i64, time: bool, cur: &mut Cursor<'_>) -> Read<i64> {
    let raw = if wire == Wire::Int { i64::from(cur.int()?) } else { cur.long()? };
    let micros = raw
        .checked_mul(mul)
        .ok_or_else(|| {
            Fault::conversion(format!("the time {raw} is out of range in microseconds"))
        })?
        .div_euclid(div);
    if time && !(0..MICROS_PER_DAY).contains(&micros) {
        return Err(Fault::conversion(format!("{micros} microseconds is no time of day")));
    }
    Ok(micros)
}

/// A two's complement big-endian number, brought to the column's scale.
pub(crate) fn decimal(bytes: &[u8], precision: u32, shift: i32) -> Read<i128> {
    let out_of_range = || Fault::conversion(format!("a decimal has more than {precision} digits"));
    let negative = bytes.first().is_some_and(|b| *b >= 0x80);
    let sign = if negative { 0xff } else { 0 };
    // What stands before the last 16 bytes may only repeat the sign.
    let cut = bytes.len().saturating_sub(16);
    let (head, tail) = bytes.split_at(cut);
    let repeats = tail.first().is_none_or(|b| (*b >= 0x80) == negative);
    if head.iter().any(|b| *b != sign) || !repeats {
        return Err(out_of_range());
    }
    let mut word = [sign; 16];
    word[16 - tail.len()..].copy_from_slice(tail);
    let unscaled = i128::from_be_bytes(word);

    let factor = 10i128.checked_pow(shift.unsigned_abs()).ok_or_else(out_of_range)?;
    let value = if shift >= 0 {
        unscaled.checked_mul(factor).ok_or_else(out_of_range)?
    } else if unscaled % factor == 0 {
        unscaled / factor
    } else {
        return Err(Fault::conversion(format!(
            "a decimal has more than its column's scale, by {}",
            -shift
        )));
    };
    if value.unsigned_abs() >= 10u128.pow(precision) {
        return Err(out_of_range());
    }
    Ok(value)
}
