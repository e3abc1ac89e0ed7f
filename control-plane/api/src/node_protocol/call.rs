//! [`NodeCall`]: the calls of the protocol as a closed list, so that the door and the tests of the protocol miss none.

/// A call of an agent to its controller. The table of [`super`] says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of the module has a line for each")]
pub enum NodeCall {
    Join,
    Renew,
    StartRun,
    Heartbeat,
    Desired,
    Report,
    Boot,
    BootOrder,
    Cut,
    Stage,
    CommitTrouble,
    Outcome,
    SalvageOrder,
    Salvaged,
    SweepDead,
    SweepJudge,
    SweepDone,
    Repository,
}

impl NodeCall {
    /// All of them. The controller has the routes of these, so one that is missing here does not work.
    pub const ALL: [Self; 18] = [
        Self::Join,
        Self::Renew,
        Self::StartRun,
        Self::Heartbeat,
        Self::Desired,
        Self::Report,
        Self::Boot,
        Self::BootOrder,
        Self::Cut,
        Self::Stage,
        Self::CommitTrouble,
        Self::Outcome,
        Self::SalvageOrder,
        Self::Salvaged,
        Self::SweepDead,
        Self::SweepJudge,
        Self::SweepDone,
        Self::Repository,
    ];

    /// Its method and its path, in which `{…}` stands for an id or a number.
    #[must_use]
    pub const fn route(self) -> (&'static str, &'static str) {
        match self {
            Self::Join => ("POST", "/node/v1/join"),
            Self::Renew => ("POST", "/node/v1/renew"),
            Self::StartRun => ("POST", "/node/v1/runs"),
            Self::Heartbeat => ("POST", "/node/v1/heartbeat"),
            Self::Desired => ("GET", "/node/v1/desired"),
            Self::Report => ("POST", "/node/v1/report"),
            Self::Boot => ("POST", "/node/v1/boots/{instance}"),
            Self::BootOrder => ("GET", "/node/v1/boots/{instance}/{disk}"),
            Self::Cut => ("POST", "/node/v1/cuts/{snapshot}"),
            Self::Stage => ("PUT", "/node/v1/commits/{commit}"),
            Self::CommitTrouble => ("POST", "/node/v1/commits/{commit}"),
            Self::Outcome => ("GET", "/node/v1/commits/{commit}"),
            Self::SalvageOrder => ("GET", "/node/v1/salvage"),
            Self::Salvaged => ("POST", "/node/v1/salvage/{disk}"),
            Self::SweepDead => ("GET", "/node/v1/sweep/{round}/dead"),
            Self::SweepJudge => ("POST", "/node/v1/sweep/{round}/judge"),
            Self::SweepDone => ("POST", "/node/v1/sweep/{round}/done"),
            Self::Repository => ("GET", "/node/v1/repository"),
        }
    }
}
