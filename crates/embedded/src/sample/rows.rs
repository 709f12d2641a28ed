//! The sample rows: a small bank. Pure: the same seed, number and time give the same bytes.

use bytes::Bytes;
use isk_model::RegistrySchemaId;

use super::avro::Writer;

pub(crate) const BRANCHES: u64 = 20;
pub(crate) const CUSTOMERS: u64 = 500;
pub(crate) const ACCOUNTS: u64 = 800;

const MS_PER_DAY: i64 = 86_400_000;

pub(crate) const BRANCH_SCHEMA: &str = r#"{"type":"record","name":"Branch","namespace":"isk.sample","fields":[
{"name":"BranchID","type":"long"},
{"name":"BranchName","type":"string"},
{"name":"City","type":"string"},
{"name":"Country","type":"string"}]}"#;

pub(crate) const CUSTOMER_SCHEMA: &str = r#"{"type":"record","name":"Customer","namespace":"isk.sample","fields":[
{"name":"CustomerID","type":"long"},
{"name":"FirstName","type":"string"},
{"name":"LastName","type":"string"},
{"name":"Email","type":["null","string"],"default":null},
{"name":"City","type":"string"},
{"name":"CustomerSince","type":{"type":"int","logicalType":"date"}}]}"#;

pub(crate) const ACCOUNT_SCHEMA: &str = r#"{"type":"record","name":"Account","namespace":"isk.sample","fields":[
{"name":"AccountID","type":"long"},
{"name":"CustomerID","type":"long"},
{"name":"BranchID","type":"long"},
{"name":"AccountType","type":{"type":"enum","name":"AccountType","symbols":["CHECKING","SAVINGS","BUSINESS"]}},
{"name":"Balance","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
{"name":"OpenedOn","type":{"type":"int","logicalType":"date"}}]}"#;

pub(crate) const TRANSACTION_SCHEMA: &str = r#"{"type":"record","name":"Transaction","namespace":"isk.sample","fields":[
{"name":"TransactionID","type":"string"},
{"name":"AccountID","type":"long"},
{"name":"TransactionType","type":{"type":"enum","name":"TransactionType","symbols":["DEPOSIT","WITHDRAWAL","TRANSFER","PAYMENT","FEE"]}},
{"name":"TransactionAmount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
{"name":"BranchID","type":"long"},
{"name":"CustomerFlaggedFraud","type":"boolean"},
{"name":"TransactionTime","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

const CITIES: [(&str, &str); 10] = [
    ("Zürich", "CH"),
    ("Lisboa", "PT"),
    ("Toronto", "CA"),
    ("Nairobi", "KE"),
    ("Osaka", "JP"),
    ("Kraków", "PL"),
    ("Austin", "US"),
    ("Bengaluru", "IN"),
    ("Córdoba", "AR"),
    ("Aarhus", "DK"),
];
const FIRST_NAMES: [&str; 16] = [
    "Amara", "Bruno", "Chiyo", "Dagny", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kavya",
    "Liam", "Mirela", "Noor", "Otto", "Paula",
];
const LAST_NAMES: [&str; 16] = [
    "Abebe", "Bauer", "Castro", "Dahl", "Egger", "Fischer", "Gupta", "Horvat", "Ito", "Jensen",
    "Kowalska", "Lopez", "Moreau", "Novak", "Okafor", "Pires",
];

/// A small generator of its own per row (SplitMix64), so that a row does not depend on the ones
/// before it.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, table: u64, row: u64) -> Self {
        let mut dice = Self(seed ^ table.rotate_left(32) ^ row.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.next();
        dice
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A row: its record key (the id as text) and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// What every row is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) seed: u64,
    pub(crate) schema: RegistrySchemaId,
}

fn row(id: String, value: Writer) -> Row {
    Row { key: Bytes::from(id), value: value.finish() }
}

/// Branch number `id`, from 1.
pub(crate) fn branch(origin: Origin, id: u64) -> Row {
    let (city, country) = CITIES[(id as usize - 1) % CITIES.len()];
    let district = if id <= CITIES.len() as u64 { "Centre" } else { "Station" };
    let mut out = Writer::new(origin.schema);
    out.long(id as i64).string(&format!("{city} {district}")).string(city).string(country);
    row(id.to_string(), out)
}

/// Customer number `id`, from 1; `today` in days since the epoch.
pub(crate) fn customer(origin: Origin, id: u64, today: i64) -> Row {
    let mut dice = Dice::new(origin.seed, 1, id);
    let (first, last) = (dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
    let (city, _) = dice.pick(&CITIES);
    let email = format!("{}.{}{id}@example.com", first.to_lowercase(), last.to_lowercase());
    let email = (dice.below(10) > 0).then_some(email);
    let since = today - 30 - dice.below(5_000) as i64;
    let mut out = Writer::new(origin.schema);
    out.long(id as i64).string(first).string(last).optional_string(email.as_deref());
    out.string(city).long(since);
    row(id.to_string(), out)
}

/// Account number `id`, from 1; `today` in days since the epoch.
pub(crate) fn account(origin: Origin, id: u64, today: i64) -> Row {
    let mut dice = Dice::new(origin.seed, 2, id);
    // Every customer has an account, some have two.
    let customer = if id <= CUSTOMERS { id } else { 1 + dice.below(CUSTOMERS) };
    let kind = [0, 0, 0, 1, 1, 2][dice.below(6) as usize];
    let cents = dice.below(2_000_000) as i64 - 50_000;
    let mut out = Writer::new(origin.schema);
    out.long(id as i64).long(customer as i64).long(home_branch(id)).long(kind);
    out.decimal(cents).long(today - dice.below(3_000) as i64);
    row(id.to_string(), out)
}

fn home_branch(account: u64) -> i64 {
    (1 + account % BRANCHES) as i64
}

/// Transaction number `number`, from 0, at `time_ms`; with the account it belongs to.
pub(crate) fn transaction(origin: Origin, number: u64, time_ms: i64) -> (u64, Row) {
    let mut dice = Dice::new(origin.seed, 3, number);
    let account = 1 + dice.below(ACCOUNTS);
    let kind = [0, 0, 1, 1, 2, 2, 3, 3, 3, 4][dice.below(10) as usize];
    // Many small amounts and few large ones; fees are always small.
    let magnitude = [1_000, 5_000, 20_000, 20_000, 100_000, 1_000_000][dice.below(6) as usize];
    let cents = 100 + dice.below(if kind == 4 { 900 } else { magnitude }) as i64;
    // Mostly at the account's own branch.
    let elsewhere = dice.below(8) == 0;
    let branch = if elsewhere { 1 + dice.below(BRANCHES) as i64 } else { home_branch(account) };
    let suspicion = if cents > 500_000 { 60 } else { 8 };
    let flagged = dice.below(1_000) < suspicion;
    let id = format!("T{number:010}");
    let mut out = Writer::new(origin.schema);
    out.string(&id).long(account as i64).long(kind).decimal(cents).long(branch);
    out.boolean(flagged).long(time_ms);
    (account, row(id, out))
}

/// Days since the epoch.
pub(crate) fn day_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(MS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::types::Value;
    use apache_avro::{Schema, from_avro_datum};

    const ORIGIN: Origin = Origin { seed: 7, schema: RegistrySchemaId(258) };

    /// Decodes with another implementation; every byte must be used.
    fn decode(schema: &str, row: &Row) -> Vec<(String, Value)> {
        assert_eq!(&row.value[..5], [0, 0, 0, 1, 2]);
        let mut body = &row.value[5..];
        let schema = Schema::parse_str(schema).unwrap();
        let Value::Record(fields) = from_avro_datum(&schema, &mut body, None).unwrap() else {
            panic!("no record")
        };
        assert!(body.is_empty());
        fields
    }

    #[test]
    fn every_row_is_right_avro() {
        for id in 1..=BRANCHES {
            decode(BRANCH_SCHEMA, &branch(ORIGIN, id));
        }
        for id in 1..=CUSTOMERS {
            decode(CUSTOMER_SCHEMA, &customer(ORIGIN, id, 20_000));
        }
        for id in 1..=ACCOUNTS {
            decode(ACCOUNT_SCHEMA, &account(ORIGIN, id, 20_000));
        }
        let mut flagged = 0;
        for number in 0..2_000 {
            let (_, row) = transaction(ORIGIN, number, 1_700_000_000_000);
            let fields = decode(TRANSACTION_SCHEMA, &row);
            let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
            let wanted = "TransactionID AccountID TransactionType TransactionAmount BranchID \
                          CustomerFlaggedFraud TransactionTime";
            assert_eq!(names.join(" "), wanted);
            assert_eq!(fields[6].1, Value::TimestampMillis(1_700_000_000_000));
            flagged += u32::from(fields[5].1 == Value::Boolean(true));
        }
        assert!((1..200).contains(&flagged), "{flagged} of 2000 flagged");
    }

    #[test]
    fn rows_depend_on_seed_and_number_only() {
        let row = |seed, number| transaction(Origin { seed, ..ORIGIN }, number, 0);
        assert_eq!(row(1, 5), row(1, 5));
        assert_ne!(row(1, 5), row(2, 5));
        assert_ne!(row(1, 5).1.value, row(1, 6).1.value);
    }

    #[test]
    fn decimals_are_the_shortest_twos_complement() {
        for (unscaled, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (-1, &[0xff]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (i64::MIN, &[0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut out = Writer::new(RegistrySchemaId(0));
            out.decimal(unscaled);
            assert_eq!(&out.finish()[6..], bytes, "{unscaled}");
        }
    }
}
