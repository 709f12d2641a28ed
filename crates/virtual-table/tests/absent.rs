//! What is said of tables that are not there.

use isk_virtual_table::ServiceError;

#[test]
fn what_a_name_lacks_is_said() {
    for (table, lacking) in [
        ("orders$paymnet", "has no type of record of this name"),
        ("orders$raw", "no topic of this name"),
        ("orders", "no topic of this name"),
    ] {
        let namespace = "hotset".to_owned();
        let error = ServiceError::NoSuchTable { namespace, table: table.to_owned() };
        assert!(error.to_string().contains(lacking), "{error}");
    }
}
