//! What the emitter writes, the reader reads; what is damaged is found.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{BoltError, EmitError, Emitter, File, Plan, PlanError, Planner};

type Data = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn plan(data: &Data) -> Plan {
    let mut planner = Planner::new();
    for (bucket, items) in data {
        planner.bucket(bucket).unwrap();
        items.iter().for_each(|(key, value)| planner.item(key, value.len()).unwrap());
    }
    planner.finish()
}

fn emit(plan: Plan, data: &Data) -> Result<Vec<u8>, EmitError> {
    let mut emitter = Emitter::new(plan, 7, Vec::new())?;
    for (bucket, items) in data {
        emitter.bucket(bucket)?;
        items.iter().try_for_each(|(key, value)| emitter.item(key, value))?;
    }
    emitter.finish()
}

fn written(data: &Data) -> Vec<u8> {
    let plan = plan(data);
    let total = plan.total_bytes();
    let bytes = emit(plan, data).unwrap();
    assert_eq!(bytes.len() as u64, total);
    bytes
}

fn read(bytes: &[u8]) -> Result<Data, BoltError> {
    let file = File::open(bytes)?;
    let mut data = Data::new();
    for name in file.buckets()? {
        let items = file.bucket(&name)?.expect("named just now").collect::<Result<_, _>>()?;
        data.insert(name, items);
    }
    Ok(data)
}

/// Sizes as they occur: revisions with small values, long keys, values of many pages.
fn random(rng: &mut StdRng) -> Data {
    let mut data = Data::new();
    for bucket in ["alarm", "auth", "cluster", "key", "lease", "meta"] {
        let count = *[0, 1, 2, 40, 400, 3000].get(rng.random_range(0..6)).unwrap();
        let items = data.entry(bucket.as_bytes().to_vec()).or_default();
        for _ in 0..count {
            let key = match rng.random_range(0..40) {
                0 => vec![rng.random(); rng.random_range(1..=9000)],
                1 => vec![0xff; rng.random_range(1..60)],
                _ => rng.random::<[u8; 17]>().to_vec(),
            };
            let value = match rng.random_range(0..60) {
                0 => rng.random_range(0..40_000),
                _ => rng.random_range(0..300),
            };
            items.insert(key, vec![rng.random(); value]);
        }
    }
    data
}

#[test]
fn what_is_written_is_read_and_sound() {
    let seed = StdRng::from_os_rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut deep, mut overflow) = (0, 0);
    for _ in 0..60 {
        let data = random(&mut rng);
        let bytes = written(&data);
        assert!(read(&bytes).unwrap() == data, "other data came back");
        let pages = File::open(bytes.as_slice()).unwrap().check().unwrap();
        assert_eq!(pages.items, data.values().map(|items| items.len() as u64).sum::<u64>());
        assert_eq!(pages.free, 0);
        assert_eq!((pages.used + 3) * 4096, bytes.len() as u64, "no page is lost between the others");
        deep += u32::from(data.values().any(|items| items.len() > 2000));
        overflow += u32::from(data.values().any(|items| items.values().any(|value| value.len() > 8192)));
    }
    println!("{deep} with trees of several levels, {overflow} with pages that overflow");
    assert!(deep > 0 && overflow > 0);
}

#[test]
fn keys_as_long_as_can_be_still_make_a_tree() {
    let mut data = Data::new();
    let keys = data.entry(b"key".to_vec()).or_default();
    for number in 0..9u8 {
        keys.insert([vec![number], vec![1; 32_767]].concat(), vec![number; 3]);
    }
    let bytes = written(&data);
    assert!(read(&bytes).unwrap() == data);
    File::open(bytes.as_slice()).unwrap().check().unwrap();
}

#[test]
fn wrong_order_and_sizes_are_refused() {
    let mut planner = Planner::new();
    assert_eq!(planner.item(b"a", 1), Err(PlanError::NoBucket));
    planner.bucket(b"b").unwrap();
    assert!(matches!(planner.bucket(b"a"), Err(PlanError::Order { what: "bucket", .. })));
    planner.item(b"k", 1).unwrap();
    assert!(matches!(planner.item(b"k", 1), Err(PlanError::Order { what: "key", .. })));
    assert_eq!(planner.item(b"", 1), Err(PlanError::Size { key: 0, value: 1 }));
    assert!(matches!(planner.item(&[b'z'; 32_769], 1), Err(PlanError::Size { .. })));
}

#[test]
fn other_data_in_the_second_pass_is_noticed() {
    let mut rng = StdRng::seed_from_u64(3);
    let data: Data = [(b"key".to_vec(), (0..999u32).map(|n| (n.to_be_bytes().to_vec(), vec![1; 90])).collect())].into();
    let items = |data: &Data| data.values().map(BTreeMap::len).sum::<usize>();
    for change in 0..40 {
        let mut other = data.clone();
        let key = rng.random_range(0..999u32).to_be_bytes().to_vec();
        let bucket = other.get_mut(b"key".as_slice()).unwrap();
        match change % 3 {
            0 => drop(bucket.remove(&key)),
            1 => drop(bucket.insert(key, vec![1; 5000])),
            _ => drop(bucket.insert([key, vec![0]].concat(), vec![1; 4000])),
        }
        assert!(matches!(emit(plan(&data), &other), Err(EmitError::Diverged(_))), "{} items", items(&other));
    }
    assert!(matches!(emit(plan(&data), &Data::new()), Err(EmitError::Diverged(_))));
}

#[test]
fn a_flipped_bit_is_found_or_harmless_and_never_a_crash() {
    let mut rng = StdRng::from_os_rng();
    let data: Data = [
        (b"key".to_vec(), (0..2000u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; 20])).collect()),
        (b"meta".to_vec(), [(b"term".to_vec(), vec![1; 8])].into()),
    ]
    .into();
    let bytes = written(&data);
    let (mut found, mut in_data) = (0, 0);
    for _ in 0..2000 {
        let mut broken = bytes.clone();
        let at = rng.random_range(0..broken.len());
        broken[at] ^= 1 << rng.random_range(0..8);
        let checked = File::open(broken.as_slice()).and_then(|file| file.check());
        match (checked, read(&broken)) {
            (Err(_), _) | (_, Err(_)) => found += 1,
            // The format has no checksum over keys and values; padding is nobody's.
            (Ok(_), Ok(_)) => in_data += 1,
        }
    }
    println!("{found} found, {in_data} in padding, keys or values");
    assert!(found > 100 && in_data > 0);
    for length in [0, 15, 80, 4096, 4176, 8192, bytes.len() - 4096, bytes.len() - 1] {
        assert!(File::open(&bytes[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn the_second_meta_page_steps_in_for_a_broken_first() {
    let data: Data = [(b"meta".to_vec(), [(b"term".to_vec(), vec![1; 8])].into())].into();
    let mut bytes = written(&data);
    assert_eq!(File::open(bytes.as_slice()).unwrap().txid(), 7);
    bytes[24] ^= 1;
    assert_eq!(File::open(bytes.as_slice()).unwrap().txid(), 6);
    assert!(read(&bytes).unwrap() == data);
    bytes[4096 + 60] ^= 1;
    assert!(matches!(File::open(bytes.as_slice()), Err(BoltError::NoMeta(_))));
}
