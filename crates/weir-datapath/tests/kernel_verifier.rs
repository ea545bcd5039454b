// SPDX-License-Identifier: Apache-2.0
//! Every program is verified under every combination of features, at a cost that is written down.

#[cfg(test)]
#[path = "support/node.rs"]
mod node;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::{env, fs};

    use weir_abi::config::features;
    use weir_abi::{Address, DatapathConfig, IfIndex};
    use weir_datapath::{Hook, Programs, SocketHook};

    use super::node::{loader, on_a_node};

    const ROOT: &str = "/sys/fs/bpf/weir";
    const SNAPSHOT: &str = "tests/snapshots/verified_instructions.txt";
    /// Renews the snapshot.
    const UPDATE: &str = "UPDATE_SNAPSHOTS";
    /// The verifier gives up above this (`BPF_COMPLEXITY_LIMIT_INSNS`).
    const LIMIT: u32 = 1_000_000;

    /// Features to the instructions of each program, in the order of [`columns`].
    type Counts = BTreeMap<String, Vec<u32>>;

    #[test]
    fn every_program_passes_the_verifier_with_every_combination_of_features() {
        on_a_node(|| check(&measure()));
    }

    /// Addresses and interfaces as a real node has them: what is constant zero would be dead code.
    fn config(features: u32) -> DatapathConfig {
        DatapathConfig {
            features,
            host: IfIndex(5),
            node_ipv4: Address::from_v4([172, 18, 0, 2]),
            node_ipv6: Address([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
            ..DatapathConfig::DEFAULT
        }
    }

    /// The programs, as a load lists them.
    fn columns() -> Vec<&'static str> {
        let mut sockets = SocketHook::ALL.to_vec();
        sockets.sort();
        let packets = Hook::ALL.iter().map(|hook| hook.name());
        packets
            .chain([Programs::AT_DRIVER])
            .chain(sockets.into_iter().map(SocketHook::name))
            .collect()
    }

    fn measure() -> Counts {
        // Keeps the maps in the kernel, so that each load finds them.
        let loader = loader(ROOT);
        let _maps = loader
            .load(&config(0))
            .unwrap_or_else(|error| panic!("{error}"));
        let mut counts = Counts::new();
        for combination in 0..1_u32 << features::ALL.len() {
            let names: Vec<_> = features::ALL
                .iter()
                .filter(|(bit, _)| combination & bit != 0)
                .map(|(_, name)| *name)
                .collect();
            let name = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join("+")
            };
            let programs = loader
                .load_programs(&config(combination))
                .unwrap_or_else(|error| panic!("with {name}: {error}"));
            let names: Vec<_> = programs.iter().map(weir_datapath::Program::name).collect();
            assert_eq!(names, columns());
            let row = programs
                .iter()
                .map(weir_datapath::Program::verified_instructions)
                .collect();
            counts.insert(name, row);
        }
        counts
    }

    fn check(counts: &Counts) {
        for (features, row) in counts {
            assert!(
                row.iter().all(|&count| count > 0 && count < LIMIT),
                "{features}: {row:?}"
            );
        }
        let snapshot = fs::read_to_string(SNAPSHOT).unwrap_or_default();
        if env::var_os(UPDATE).is_some() {
            fs::write(SNAPSHOT, render(counts)).unwrap();
            return;
        }
        if snapshot.lines().next() != render(counts).lines().next() {
            eprintln!("the snapshot was made on another kernel: counts are not compared");
            return;
        }
        let problems = grown(&parse(&snapshot), counts);
        assert!(
            problems.is_empty(),
            "{}\nmake the programs simpler, or accept it with {UPDATE}=1",
            problems.join("\n")
        );
    }

    /// Cells that are missing or more than a tenth above the snapshot.
    fn grown(snapshot: &Counts, counts: &Counts) -> Vec<String> {
        let mut problems = Vec::new();
        for (features, row) in counts {
            let Some(known) = snapshot
                .get(features)
                .filter(|known| known.len() == row.len())
            else {
                problems.push(format!("{features} is not in the snapshot"));
                continue;
            };
            for ((program, now), before) in columns().into_iter().zip(row).zip(known) {
                if u64::from(*now) * 10 > u64::from(*before) * 11 {
                    problems.push(format!(
                        "{program} with {features}: {now} verified instructions, {before} before"
                    ));
                }
            }
        }
        problems
    }

    fn render(counts: &Counts) -> String {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let version: Vec<_> = release.split('.').take(2).collect();
        let mut text = format!("verified instructions on Linux {}\n", version.join("."));
        for program in columns() {
            write!(text, "{program:>16}").unwrap();
        }
        text.push_str("  features\n");
        let most = (0..columns().len()).map(|column| {
            counts
                .values()
                .filter_map(|row| row.get(column))
                .max()
                .copied()
                .unwrap_or_default()
        });
        let rows = counts
            .iter()
            .map(|(features, row)| (features.as_str(), row.clone()));
        for (features, row) in rows.chain([("most", most.collect())]) {
            for count in row {
                write!(text, "{count:>16}").unwrap();
            }
            writeln!(text, "  {features}").unwrap();
        }
        text
    }

    fn parse(snapshot: &str) -> Counts {
        let mut counts = Counts::new();
        for line in snapshot.lines().skip(2) {
            let mut words: Vec<_> = line.split_whitespace().collect();
            if let Some(features) = words.pop() {
                let row = words.iter().filter_map(|word| word.parse().ok()).collect();
                counts.insert(features.to_owned(), row);
            }
        }
        counts
    }

    #[test]
    fn growth_is_noticed_beyond_a_tenth() {
        let one = |count| Counts::from([("none".to_owned(), vec![count; columns().len()])]);
        assert!(grown(&one(100), &one(110)).is_empty());
        assert_eq!(grown(&one(100), &one(111)).len(), columns().len());
        assert_eq!(grown(&Counts::new(), &one(1)).len(), 1);
        assert_eq!(parse(&render(&one(7))).get("none"), one(7).get("none"));
    }
}
