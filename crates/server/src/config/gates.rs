//! Feature gates: `--feature-gates Name=true,Other=false`. Source: etcd `pkg/featuregate`, `server/features`.

use super::spelling::{self, Complaint};

/// How far along a feature is; `as_str` as the metric shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

impl Stage {
    /// In capitals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// One feature.
#[derive(Debug)]
pub struct Gate {
    /// As it is given.
    pub name: &'static str,
    /// On without being asked for?
    pub default: bool,
    /// See [`Stage`].
    pub stage: Stage,
    /// What comes of it here.
    pub effect: &'static str,
}

const fn gate(name: &'static str, default: bool, stage: Stage, effect: &'static str) -> Gate {
    Gate { name, default, stage, effect }
}

/// Every feature of etcd 3.7.1, by name.
pub const GATES: [Gate; 9] = [
    gate("CompactHashCheck", true, Stage::Alpha, "on, unlike in etcd: the leader compares what compactions leave"),
    gate("FastLeaseKeepAlive", true, Stage::Beta, "nothing: keep-alives never wait for apply"),
    gate("InitialCorruptCheck", true, Stage::Alpha, "on, unlike in etcd: at a restart the others' data is compared"),
    gate("LeaseCheckpoint", false, Stage::Alpha, "leases are checkpointed unless this is set to false"),
    gate("LeaseCheckpointPersist", false, Stage::Alpha, "nothing: checkpoints are always kept"),
    gate("PriorityRequest", false, Stage::Alpha, "nothing: requests are applied in the order of the log"),
    gate("SetMemberLocalAddr", false, Stage::Alpha, "nothing: it is about connections to other members"),
    gate("StopGRPCServiceOnDefrag", false, Stage::Alpha, "the gRPC health service says NOT_SERVING during Defragment"),
    gate("TxnModeWriteWithSharedBuffer", true, Stage::Beta, "nothing: transactions have no such buffer"),
];

/// Which features are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    given: Vec<(&'static str, bool)>,
    all_alpha: Option<bool>,
    all_beta: Option<bool>,
}

impl Gates {
    /// Reads `Name=bool` pairs; `AllAlpha` and `AllBeta` set what is not named.
    ///
    /// # Errors
    /// The pair that is not one, in etcd's words.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let mut gates = Self::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", pair.trim())),
            };
            let value = spelling::boolean(value).map_err(|_| {
                format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
            })?;
            match (name, GATES.iter().find(|gate| gate.name == name)) {
                ("AllAlpha", _) => gates.all_alpha = Some(value),
                ("AllBeta", _) => gates.all_beta = Some(value),
                (_, Some(gate)) => {
                    gates.given.retain(|(known, _)| *known != gate.name);
                    gates.given.push((gate.name, value));
                }
                (_, None) => return Err(format!("unrecognized feature gate: {name}")),
            }
        }
        Ok(gates)
    }

    /// Was it named, and how?
    #[must_use]
    pub fn given(&self, name: &str) -> Option<bool> {
        self.given.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Is it on?
    #[must_use]
    pub fn is_on(&self, gate: &Gate) -> bool {
        let of_stage = match gate.stage {
            Stage::Alpha => self.all_alpha,
            Stage::Beta => self.all_beta,
        };
        self.given(gate.name).or(of_stage).unwrap_or(gate.default)
    }

    /// Every feature and both stages by name, with its stage and whether it is on: as etcd's metric has them.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> + '_ {
        let stages = [("AllAlpha", Stage::Alpha, self.all_alpha), ("AllBeta", Stage::Beta, self.all_beta)];
        let stages = stages.into_iter().map(|(name, stage, is_on)| (name, stage.as_str(), is_on.unwrap_or(false)));
        stages.chain(GATES.iter().map(|gate| (gate.name, gate.stage.as_str(), self.is_on(gate))))
    }

    /// What was named, as it would be typed.
    #[must_use]
    pub fn text(&self) -> String {
        let stages = [("AllAlpha", self.all_alpha), ("AllBeta", self.all_beta)];
        let stages = stages.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        let mut pairs: Vec<String> =
            self.given.iter().copied().chain(stages).map(|(name, value)| format!("{name}={value}")).collect();
        pairs.sort();
        pairs.join(",")
    }

    /// Is the feature of this name on? Names that do not exist are off.
    #[must_use]
    pub fn is_named_on(&self, name: &str) -> bool {
        GATES.iter().any(|gate| gate.name == name && self.is_on(gate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(text: &str) -> Vec<&'static str> {
        let gates = Gates::parse(text).unwrap();
        GATES.iter().filter(|gate| gates.is_on(gate)).map(|gate| gate.name).collect()
    }

    #[test]
    fn named_ones_win_over_their_stage() {
        let safe = ["CompactHashCheck", "FastLeaseKeepAlive", "InitialCorruptCheck"];
        assert_eq!(on(""), [&safe[..], &["TxnModeWriteWithSharedBuffer"]].concat());
        assert_eq!(on(" AllBeta = false , FastLeaseKeepAlive=1"), safe);
        assert_eq!(on("AllAlpha=false"), ["FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"]);
        assert_eq!(on("CompactHashCheck=f,AllAlpha=true").len(), 8);
        assert_eq!(on("LeaseCheckpoint=true,LeaseCheckpoint=false,").len(), 4);
    }

    #[test]
    fn complaints_are_etcds() {
        for (text, complaint) in [
            ("X=true", "unrecognized feature gate: X"),
            ("AllAlpha", "missing bool value for AllAlpha"),
            ("AllAlpha=x", "invalid value of AllAlpha=x, err: strconv.ParseBool: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(Gates::parse(text).unwrap_err(), complaint);
        }
    }
}
