//! Carrying out a plan: from a JSON payload into columns.

use super::escape::RawText;
use super::plan::{JsonElements, JsonField, JsonPlan, JsonRecord, JsonRows};
use super::rest::{Brackets, Rest};
use super::scan::{Scanner, Token};
use super::text;
use crate::error::{FailureStage, Fault, Read};
use crate::run::decimal;
use crate::sink::{Maps, Sink, Structs, unfit};

/// Reads one payload to its end, as one row. On a fault the columns may hold part of it.
pub(crate) fn row(rows: &JsonRows, scanner: &mut Scanner<'_>, sink: &mut Sink) -> Read<()> {
    let Sink::Struct(columns) = sink else { return Err(unfit()) };
    if scanner.null()? {
        sink.null();
        return scanner.end();
    }
    match rows {
        JsonRows::Spread(plan) => {
            scanner.rest = plan.rest_text.map(|_| Rest::default());
            record(plan, scanner, columns)?;
        }
        JsonRows::One { at, name, plan } => {
            let column = columns.columns.get_mut(*at).ok_or_else(unfit)?;
            if let JsonPlan::Record(record) = plan {
                scanner.rest = record.rest_text.map(|_| Rest::default());
            }
            run(plan, scanner, column).map_err(|fault| fault.within(name))?;
            columns.end_beside(*at);
        }
    }
    scanner.end()
}

fn run(plan: &JsonPlan, scanner: &mut Scanner<'_>, sink: &mut Sink) -> Read<()> {
    let token = scanner.token()?;
    if token == Token::Null && scanner.null()? {
        sink.null();
        return Ok(());
    }
    match (plan, token, sink) {
        (JsonPlan::Text, Token::Text, Sink::Text(s)) => {
            let found = scanner.string()?;
            if found.escaped {
                s.push_with(|data| found.unescape(data))?;
            } else {
                s.push(found.raw.as_bytes())?;
            }
        }
        (JsonPlan::Long, Token::Number, Sink::Long(s)) => s.push(text::whole(scanner.number()?)?),
        (JsonPlan::Double, Token::Number, Sink::Double(s)) => {
            s.push(text::double(scanner.number()?)?);
        }
        (JsonPlan::Boolean, Token::Boolean, Sink::Boolean(s)) => s.push(scanner.boolean()?),
        (JsonPlan::Record(plan), Token::Object, Sink::Struct(s)) => record(plan, scanner, s)?,
        (JsonPlan::List(elements), Token::List, Sink::List(s)) => {
            scanner.array(|scanner| {
                scanner.budget.charge(1, elements.cells)?;
                within(elements.opens, None, &elements.plan, scanner, &mut s.element)
            })?;
            s.end()?;
        }
        (JsonPlan::Map(elements), Token::Object, Sink::Map(s)) => {
            scanner.object(|scanner, key| entry(elements, scanner, key, s))?;
            s.end_distinct()?;
        }
        (JsonPlan::Json, _, Sink::Text(s)) => s.push(scanner.any()?.as_bytes())?,
        (JsonPlan::Int, Token::Number, Sink::Int(s)) => {
            let value = text::whole(scanner.number()?)?;
            s.push(i32::try_from(value).map_err(|_| no_int(value))?);
        }
        (JsonPlan::Float, Token::Number, Sink::Float(s)) => s.push(text::float(scanner.number()?)?),
        (JsonPlan::Present, Token::Object, Sink::Boolean(s)) => {
            scanner.any()?;
            s.push(true);
        }
        (plan, token, sink) => return meant(plan, token, scanner, sink),
    }
    Ok(())
}

#[cold]
fn no_int(value: i64) -> Fault {
    Fault::conversion(format!("{value} is no 32-bit number"))
}

/// Values that mean more than JSON can say.
fn meant(plan: &JsonPlan, token: Token, scanner: &mut Scanner<'_>, sink: &mut Sink) -> Read<()> {
    match (plan, token, sink) {
        (JsonPlan::Timestamp { .. }, Token::Text, Sink::Long(s)) => {
            s.push(with_text(scanner, text::timestamp)?);
        }
        (JsonPlan::Timestamp { number: Some((mul, div)) }, Token::Number, Sink::Long(s)) => {
            let value = text::whole(scanner.number()?)?;
            let micros = value.checked_mul(*mul).map(|micros| micros.div_euclid(*div));
            s.push(micros.ok_or_else(|| {
                Fault::conversion(format!("the time {value} is out of range in microseconds"))
            })?);
        }
        (JsonPlan::Date { .. }, Token::Text, Sink::Int(s)) => {
            s.push(with_text(scanner, text::date)?);
        }
        (JsonPlan::Date { days: true }, Token::Number, Sink::Int(s)) => {
            let value = text::whole(scanner.number()?)?;
            s.push(i32::try_from(value).map_err(|_| no_int(value))?);
        }
        (JsonPlan::Time, Token::Number, Sink::Long(s)) => {
            let millis = text::whole(scanner.number()?)?;
            if !(0..86_400_000).contains(&millis) {
                return Err(Fault::conversion(format!("{millis} milliseconds is no time of day")));
            }
            s.push(millis * 1000);
        }
        (JsonPlan::Uuid, Token::Text, Sink::Fixed(s)) => {
            let uuid = with_text(scanner, |bytes| match bytes.len() {
                36 => uuid::Uuid::try_parse_ascii(bytes)
                    .map_err(|e| Fault::new(format!("a text is no uuid: {e}"))),
                other => Err(Fault::new(format!("a text of {other} bytes is no uuid"))),
            })?;
            s.push(uuid.as_bytes())?;
        }
        (JsonPlan::Binary, Token::Text, Sink::Binary(s)) => {
            s.push(&with_text(scanner, text::base64)?);
        }
        (
            JsonPlan::Decimal { precision, shift: Some(shift), .. },
            Token::Text,
            Sink::Decimal(s),
        ) => {
            let bytes = with_text(scanner, text::base64)?;
            s.push(decimal(&bytes, *precision, *shift)?);
        }
        (JsonPlan::Decimal { precision, scale, .. }, Token::Number, Sink::Decimal(s)) => {
            let value = text::scaled(scanner.number()?, *scale)?;
            if value.unsigned_abs() >= 10u128.pow(*precision) {
                return Err(Fault::conversion(format!(
                    "a decimal has more than {precision} digits"
                )));
            }
            s.push(value);
        }
        (JsonPlan::Refuse(why), ..) => return Err(Fault::at(FailureStage::Resolution, *why)),
        (plan, token, _) => {
            return Err(Fault::new(format!(
                "{} is found where {} belongs",
                token.name(),
                wanted(plan)
            )));
        }
    }
    Ok(())
}

fn with_text<T>(scanner: &mut Scanner<'_>, read: impl FnOnce(&[u8]) -> Read<T>) -> Read<T> {
    let found = scanner.string()?;
    if !found.escaped {
        return read(found.raw.as_bytes());
    }
    let mut plain = Vec::new();
    found.unescape(&mut plain)?;
    read(&plain)
}

fn wanted(plan: &JsonPlan) -> &'static str {
    match plan {
        JsonPlan::Null => "null",
        JsonPlan::Boolean => "a boolean",
        JsonPlan::Int | JsonPlan::Long => "a whole number",
        JsonPlan::Float | JsonPlan::Double | JsonPlan::Decimal { shift: None, .. } => "a number",
        JsonPlan::Text | JsonPlan::Uuid => "a text",
        JsonPlan::Binary | JsonPlan::Decimal { .. } => "a text in Base64",
        JsonPlan::Date { .. } => "a date",
        JsonPlan::Time => "a time",
        JsonPlan::Timestamp { .. } => "a date-time",
        JsonPlan::List(_) => "an array",
        JsonPlan::Map(_) | JsonPlan::Record(_) | JsonPlan::Present => "an object",
        JsonPlan::Json | JsonPlan::Refuse(_) => "something else",
    }
}

fn record(plan: &JsonRecord, scanner: &mut Scanner<'_>, s: &mut Structs) -> Read<()> {
    if scanner.token()? != Token::Object {
        let found = scanner.token()?.name();
        return Err(Fault::new(format!("{found} is found where an object belongs")));
    }
    let row = s.len();
    // Producers write keys in the same order each time; columns up to the one that is expected have been seen, or are
    // not there.
    let (mut expected, mut in_order) = (0, true);
    let mut more = scanner.enter(b'}')?;
    while more {
        let found = match plan.fields.get(expected) {
            Some(field) if !field.quoted.is_empty() && scanner.key_is(&field.quoted) => expected,
            _ => {
                let key = scanner.key()?;
                match position(plan, key)? {
                    Some(at) => {
                        in_order &= at >= expected;
                        at
                    }
                    None => {
                        unnamed(plan, scanner, key, s)?;
                        more = scanner.more(b'}')?;
                        continue;
                    }
                }
            }
        };
        expected = found + 1;
        let field = &plan.fields[found];
        let column = s.columns.get_mut(found).ok_or_else(unfit)?;
        if !in_order && column.len() > row {
            return Err(Fault::new("an object has it twice").within(&field.name));
        }
        within(field.opens, Some(Key::Of(field)), &field.plan, scanner, column)
            .map_err(|fault| fault.within(&field.name))?;
        more = scanner.more(b'}')?;
    }
    if let Some((column, _)) = &plan.rest
        && let Some(Sink::Map(map)) = s.columns.get_mut(*column)
    {
        map.end_distinct()?;
    }
    if let Some(column) = plan.rest_text
        && let Some(Sink::Text(text)) = s.columns.get_mut(column)
        && let Some(found) = scanner.rest.take().and_then(Rest::finish)
    {
        text.push(found.as_bytes())?;
    }
    for column in &mut s.columns {
        if column.len() == row {
            column.null();
        }
    }
    s.end();
    Ok(())
}

/// A member that is none of the fields: passed over, or kept with the rest.
fn unnamed(
    plan: &JsonRecord,
    scanner: &mut Scanner<'_>,
    key: RawText<'_>,
    s: &mut Structs,
) -> Read<()> {
    let Some((column, elements)) = &plan.rest else {
        let value = scanner.any()?;
        if let Some(rest) = &mut scanner.rest {
            key.check()?;
            rest.member(key.raw, value);
        }
        return Ok(());
    };
    match s.columns.get_mut(*column) {
        Some(Sink::Map(map)) => entry(elements, scanner, key, map),
        _ => Err(unfit()),
    }
}

/// The field of a key that is not the one expected next.
fn position(plan: &JsonRecord, key: RawText<'_>) -> Read<Option<usize>> {
    if !key.escaped {
        return Ok(plan.by_name.get(key.raw).copied());
    }
    let mut plain = Vec::new();
    key.unescape(&mut plain)?;
    Ok(std::str::from_utf8(&plain).ok().and_then(|name| plan.by_name.get(name).copied()))
}

/// One member of an object as an entry of a map.
fn entry(
    elements: &JsonElements,
    scanner: &mut Scanner<'_>,
    key: RawText<'_>,
    s: &mut Maps,
) -> Read<()> {
    scanner.budget.charge(1, elements.cells)?;
    if key.escaped {
        s.keys.push_with(|data| key.unescape(data))?;
    } else {
        s.keys.push(key.raw.as_bytes())?;
    }
    within(elements.opens, Some(Key::Raw(key.raw)), &elements.plan, scanner, &mut s.values)
}

/// What a value stands under.
enum Key<'a> {
    Of(&'a JsonField),
    Raw(&'a str),
}

/// Reads a value in which there may be members without a place: these are kept where this value is.
#[inline]
fn within(
    opens: Option<Brackets>,
    key: Option<Key<'_>>,
    plan: &JsonPlan,
    scanner: &mut Scanner<'_>,
    sink: &mut Sink,
) -> Read<()> {
    let (Some(brackets), Some(rest)) = (opens, &mut scanner.rest) else {
        return run(plan, scanner, sink);
    };
    let mark = match key {
        None => rest.element(brackets),
        Some(Key::Raw(key)) => rest.value(key, brackets),
        Some(Key::Of(field)) => rest.value(&field.key, brackets),
    };
    run(plan, scanner, sink)?;
    if let Some(rest) = &mut scanner.rest {
        rest.leave(mark);
    }
    Ok(())
}
