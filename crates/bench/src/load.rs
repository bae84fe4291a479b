//! The engine room: threads with connections, connections with clients, clients with one request at a time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use crate::endpoint::Endpoint;
use crate::grpc::{CallError, Connection, Route, Stream, frame};
use crate::meter::Meter;
use crate::tickets::{self, Tickets, Until};
use crate::work::{Acknowledged, Next, Talk, Work};

/// How often the waiting main thread looks after things: memory of the server, signs of life.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Distinct error texts that are kept; a text may carry numbers, and a broken server may have thousands.
const ERROR_TEXTS_MAX: usize = 20;

/// Samples kept per thread. Beyond, every other one is dropped and the distance doubles.
const SAMPLES_MAX: usize = 2000;

/// How many of what.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Connections go round them.
    pub endpoints: Vec<Endpoint>,
    /// HTTP/2 connections over all threads.
    pub conns: usize,
    /// Requests under way at once over all connections.
    pub clients: usize,
    /// Threads, each with its own runtime.
    pub threads: usize,
}

/// What stops a run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A connection could not be made.
    #[error("{0}; is the server running there? (--endpoints)")]
    Connect(CallError),
    /// Requests are out and nothing comes back.
    #[error("no answer for {0:?} with requests or connections under way: the server hangs (--timeout)")]
    Stalled(Duration),
    /// A phase that only prepares had errors.
    #[error("{what} failed: {text}")]
    Preparation {
        /// Which phase.
        what: &'static str,
        /// First error text.
        text: String,
    },
}

/// What a phase brought.
#[derive(Default)]
pub struct Outcome {
    /// Latencies of answers without error.
    pub meter: Meter,
    /// Answers without error.
    pub good: u64,
    /// Errors by text.
    pub errors: BTreeMap<String, u64>,
    /// Some of the acknowledged requests.
    pub samples: Samples,
    /// When the last answer came; the end of the measured time.
    pub last: Option<Instant>,
    /// Bytes of all answers' messages.
    pub received: u64,
}

impl Outcome {
    /// How many requests failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn error(&mut self, text: String) {
        self.add_errors(text, 1);
    }

    fn add_errors(&mut self, text: String, count: u64) {
        let full = self.errors.len() >= ERROR_TEXTS_MAX && !self.errors.contains_key(&text);
        let text = if full { "other errors".into() } else { text };
        *self.errors.entry(text).or_default() += count;
    }

    fn merge(&mut self, other: Outcome) {
        self.meter.merge(&other.meter);
        self.good += other.good;
        for (text, count) in other.errors {
            self.add_errors(text, count);
        }
        self.samples.kept.extend(other.samples.kept);
        self.last = self.last.max(other.last);
        self.received += other.received;
    }
}

/// An even choice of acknowledged requests, whatever their number turns out to be.
pub struct Samples {
    /// What was chosen.
    pub kept: Vec<Acknowledged>,
    stride: u64,
}

impl Default for Samples {
    fn default() -> Samples {
        Samples { kept: Vec::new(), stride: 1 }
    }
}

impl Samples {
    fn offer(&mut self, sample: Acknowledged) {
        if !sample.n.is_multiple_of(self.stride) {
            return;
        }
        if self.kept.len() == SAMPLES_MAX {
            self.stride *= 2;
            self.kept.retain(|kept| kept.n.is_multiple_of(self.stride));
        }
        self.kept.push(sample);
    }
}

/// One order to all threads.
#[derive(Clone)]
struct Phase {
    work: Arc<dyn Work>,
    tickets: Arc<Tickets>,
}

/// Connected threads, waiting for phases. Dropping it closes the connections.
pub struct Load {
    threads: Vec<Thread>,
    outcomes: Receiver<Outcome>,
    patience: Duration,
}

struct Thread {
    orders: Option<UnboundedSender<Phase>>,
    handle: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts the threads and makes all connections. `patience` is how long silence is borne during a phase.
    ///
    /// # Errors
    /// [`LoadError::Connect`] for the first connection that fails, [`LoadError::Stalled`] when one neither fails nor
    /// succeeds.
    pub fn connect(shape: &Shape, patience: Duration) -> Result<Load, LoadError> {
        let (outcome_sender, outcomes) = channel();
        let (ready_sender, ready) = channel();
        let mut load = Load { threads: Vec::new(), outcomes, patience };
        for index in 0..shape.threads {
            let (orders, inbox) = unbounded_channel();
            let share = Share::of(shape, index);
            let (ready_sender, outcome_sender) = (ready_sender.clone(), outcome_sender.clone());
            let handle = std::thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || thread(share, &ready_sender, inbox, &outcome_sender))
                .expect("the system grants a few threads");
            load.threads.push(Thread { orders: Some(orders), handle: Some(handle) });
        }
        drop(ready_sender);
        for _ in 0..shape.threads {
            // A thread that says nothing waits for a connection.
            let connected = ready.recv_timeout(patience).map_err(|_| LoadError::Stalled(patience))?;
            connected.map_err(LoadError::Connect)?;
        }
        Ok(load)
    }

    /// Runs one phase to its end; `look` is called every now and then meanwhile.
    ///
    /// # Errors
    /// [`LoadError::Stalled`]; errors of single requests are in the outcome.
    pub fn run(
        &self,
        work: Arc<dyn Work>,
        until: Until,
        rate: Option<f64>,
        mut look: impl FnMut(),
    ) -> Result<(Outcome, Arc<Tickets>), LoadError> {
        let tickets = Tickets::new(until, rate);
        let pacer = rate.map(|_| {
            let tickets = tickets.clone();
            std::thread::spawn(move || tickets::pace(&tickets))
        });
        for thread in &self.threads {
            let phase = Phase { work: work.clone(), tickets: tickets.clone() };
            let orders = thread.orders.as_ref().expect("closed on drop only");
            orders.send(phase).expect("a thread lives as long as its orders");
        }
        let mut sum = Outcome::default();
        let mut life = Life::new(self.patience);
        let mut missing = self.threads.len();
        while missing > 0 {
            match self.outcomes.recv_timeout(LOOK_EVERY) {
                Ok(outcome) => {
                    sum.merge(outcome);
                    missing -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {
                    look();
                    life.sign(tickets.answers(), Instant::now())?;
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("a thread lives as long as its orders"),
            }
        }
        tickets.stop();
        if let Some(pacer) = pacer {
            pacer.join().expect("the pacer does not panic");
        }
        Ok((sum, tickets))
    }

    /// Runs a phase that must not fail, as loading and warming up; returns the number of answers.
    ///
    /// # Errors
    /// The first error of any request, as [`LoadError::Preparation`].
    pub fn prepare(&self, what: &'static str, work: Arc<dyn Work>, until: Until) -> Result<u64, LoadError> {
        self.flawless(what, work, until).map(|outcome| outcome.good)
    }

    /// The revision of one answer.
    ///
    /// # Errors
    /// As [`Load::prepare`].
    pub fn revision(&self, what: &'static str, work: Arc<dyn Work>) -> Result<i64, LoadError> {
        let outcome = self.flawless(what, work, Until::Total(1))?;
        match outcome.samples.kept.first() {
            Some(answer) => Ok(answer.revision),
            None => Err(LoadError::Preparation { what, text: "no answer".into() }),
        }
    }

    fn flawless(&self, what: &'static str, work: Arc<dyn Work>, until: Until) -> Result<Outcome, LoadError> {
        let (outcome, _) = self.run(work, until, None, || ())?;
        match outcome.errors.keys().next() {
            Some(text) => Err(LoadError::Preparation { what, text: text.clone() }),
            None => Ok(outcome),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            thread.orders = None;
        }
        for thread in &mut self.threads {
            // A thread with a hanging request never looks at its orders again; the process ends without it.
            if let Some(handle) = thread.handle.take_if(|handle| handle.is_finished()) {
                handle.join().expect("load threads do not panic");
            }
        }
    }
}

/// Notices when answers cease.
struct Life {
    patience: Duration,
    answers: u64,
    since: Instant,
}

impl Life {
    fn new(patience: Duration) -> Life {
        Life { patience, answers: 0, since: Instant::now() }
    }

    fn sign(&mut self, answers: u64, now: Instant) -> Result<(), LoadError> {
        if answers != self.answers {
            self.answers = answers;
            self.since = now;
        }
        if now.duration_since(self.since) >= self.patience {
            return Err(LoadError::Stalled(self.patience));
        }
        Ok(())
    }
}

/// What one thread has to carry: its connections.
struct Share(Vec<Hand>);

/// One connection: where to, and the numbers of its clients.
struct Hand {
    endpoint: Endpoint,
    clients: Vec<usize>,
}

impl Share {
    /// Connections and clients dealt out like cards.
    fn of(shape: &Shape, thread: usize) -> Share {
        let mine = (0..shape.conns).filter(|conn| conn % shape.threads == thread);
        let one = |conn: usize| Hand {
            endpoint: shape.endpoints[conn % shape.endpoints.len()].clone(),
            clients: (conn..shape.clients).step_by(shape.conns).collect(),
        };
        Share(mine.map(one).collect())
    }
}

fn thread(
    share: Share,
    ready: &Sender<Result<(), CallError>>,
    mut orders: UnboundedReceiver<Phase>,
    outcomes: &Sender<Outcome>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system grants an epoll instance");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut connections = Vec::new();
        for hand in share.0 {
            match Connection::open(&hand.endpoint).await {
                Ok(connection) => connections.push((connection, hand.clients)),
                Err(error) => {
                    // Nobody listens any more when another thread failed first.
                    let _ = ready.send(Err(error));
                    return;
                }
            }
        }
        let _ = ready.send(Ok(()));
        while let Some(phase) = orders.recv().await {
            if outcomes.send(all_clients(&connections, &phase).await).is_err() {
                return;
            }
        }
    });
}

async fn all_clients(connections: &[(Connection, Vec<usize>)], phase: &Phase) -> Outcome {
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let mut clients = Vec::new();
    for (connection, numbers) in connections {
        for number in numbers {
            let line = Line::new(connection.clone(), *number, &*phase.work);
            clients.push(tokio::task::spawn_local(client(line, phase.clone(), outcome.clone())));
        }
    }
    for client in clients {
        client.await.expect("clients do not panic");
    }
    Rc::into_inner(outcome).expect("all clients have ended").into_inner()
}

/// One client: asks, waits, notes, until the tickets end or its connection breaks.
async fn client(mut line: Line, phase: Phase, outcome: Rc<RefCell<Outcome>>) {
    let mut now = phase.tickets.start();
    while let Some(ticket) = phase.tickets.next(now).await {
        let result = line.operation(&*phase.work, ticket.n, &phase.tickets).await;
        now = Instant::now();
        phase.tickets.answered();
        let mut outcome = outcome.borrow_mut();
        outcome.last = Some(now);
        outcome.received += std::mem::take(&mut line.received);
        match result {
            Ok(Ok(revision)) => {
                outcome.good += 1;
                outcome.meter.record(now.saturating_duration_since(ticket.since));
                phase.work.timed(ticket.since, now);
                outcome.samples.offer(Acknowledged { n: ticket.n, revision });
            }
            Ok(Err(text)) => outcome.error(text),
            Err(error) => {
                outcome.error(error.to_string());
                if matches!(error, CallError::Broken(_)) {
                    return;
                }
            }
        }
    }
}

/// How a client reaches its server: a call per request, or one stream for all.
struct Line {
    connection: Connection,
    /// The client's number.
    client: usize,
    path: &'static str,
    route: Route,
    /// Of the calls that follow the first one of an operation, in the order in which they were met.
    others: Vec<(&'static str, Route)>,
    talk: Talk,
    stream: Option<Stream>,
    /// Bytes of messages since somebody took note.
    received: u64,
}

impl Line {
    fn new(connection: Connection, client: usize, work: &dyn Work) -> Line {
        let path = work.path();
        let route = connection.route(path);
        Line { connection, client, path, route, others: Vec::new(), talk: work.talk(), stream: None, received: 0 }
    }

    /// All calls of one operation. The inner error is a wrong answer, the outer one no answer.
    async fn operation(
        &mut self,
        work: &dyn Work,
        n: u64,
        tickets: &Tickets,
    ) -> Result<Result<i64, String>, CallError> {
        let request = frame(|out| work.encode_for(self.client, n, out));
        if self.talk == Talk::Download {
            return self.download(work, request, tickets).await;
        }
        let mut answer = self.call(request).await?;
        for call in 0.. {
            self.received += answer.len() as u64;
            match work.answered(self.client, n, call, answer) {
                Ok(Next::Done(revision)) => return Ok(Ok(revision)),
                Ok(Next::Call(path, message)) => {
                    let framed = frame(|out| out.unsplit(message));
                    let route = self.route(path);
                    answer = self.connection.unary(&route, framed).await?;
                }
                Err(text) => return Ok(Err(text)),
            }
        }
        unreachable!("an operation has fewer calls than there are numbers")
    }

    fn route(&mut self, path: &'static str) -> Route {
        if path == self.path {
            return self.route.clone();
        }
        if let Some((_, route)) = self.others.iter().find(|(known, _)| *known == path) {
            return route.clone();
        }
        let route = self.connection.route(path);
        self.others.push((path, route.clone()));
        route
    }

    async fn call(&mut self, framed: bytes::Bytes) -> Result<bytes::Bytes, CallError> {
        if self.talk == Talk::Unary {
            return self.connection.unary(&self.route, framed).await;
        }
        let stream = match &mut self.stream {
            Some(stream) => {
                stream.send(framed)?;
                stream
            }
            None => self.stream.insert(self.connection.stream(&self.route, framed).await?),
        };
        match stream.next().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(CallError::Broken("the server ended the stream".into())),
            Err(error) => {
                // A refusal ends its stream; the next request opens another.
                self.stream = None;
                Err(error)
            }
        }
    }

    async fn download(
        &mut self,
        work: &dyn Work,
        framed: bytes::Bytes,
        tickets: &Tickets,
    ) -> Result<Result<i64, String>, CallError> {
        let mut sink = work.sink().expect("whoever downloads has a sink");
        let mut stream = self.connection.download(&self.route, framed).await?;
        while let Some(message) = stream.next().await? {
            self.received += message.len() as u64;
            // A long download is alive as long as something comes.
            tickets.answered();
            if let Err(text) = sink.push(message) {
                return Ok(Err(text));
            }
        }
        Ok(sink.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(conns: usize, clients: usize, threads: usize) -> Shape {
        Shape { endpoints: vec![Endpoint::plain("a:1"), Endpoint::plain("b:1")], conns, clients, threads }
    }

    #[test]
    fn connections_and_clients_are_dealt_out_evenly_and_completely() {
        for (conns, clients, threads) in [(1, 1, 1), (100, 1000, 1), (7, 23, 3), (4, 4, 4)] {
            let shape = shape(conns, clients, threads);
            let hands: Vec<Hand> = (0..threads).flat_map(|index| Share::of(&shape, index).0).collect();
            assert_eq!(hands.len(), conns);
            let mut numbers: Vec<usize> = hands.iter().flat_map(|hand| hand.clients.clone()).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..clients).collect::<Vec<_>>());
            let (low, high) = (clients / conns, clients.div_ceil(conns));
            assert!(hands.iter().all(|hand| (low..=high).contains(&hand.clients.len())));
            let first = hands.iter().filter(|hand| hand.endpoint.authority == "a:1").count();
            assert_eq!(first, conns.div_ceil(2));
        }
    }

    #[test]
    fn samples_stay_few_and_spread_over_the_whole_run() {
        let mut samples = Samples::default();
        for n in 0..1_000_000 {
            samples.offer(Acknowledged { n, revision: 1 });
        }
        assert!((SAMPLES_MAX / 2..=SAMPLES_MAX).contains(&samples.kept.len()), "{}", samples.kept.len());
        let late = samples.kept.iter().filter(|sample| sample.n >= 500_000).count();
        assert!(late * 2 >= samples.kept.len() - 2, "{late} of {}", samples.kept.len());
    }

    #[test]
    fn distinct_error_texts_are_bounded_and_none_is_lost() {
        let mut outcome = Outcome::default();
        for n in 0..1000 {
            outcome.error(format!("error {n}"));
        }
        assert_eq!(outcome.failed(), 1000);
        assert!(outcome.errors.len() <= ERROR_TEXTS_MAX + 1);
    }

    #[test]
    fn silence_is_noticed_and_an_answer_resets_it() {
        let mut life = Life::new(Duration::from_secs(5));
        let at = |seconds| life_start() + Duration::from_secs(seconds);
        fn life_start() -> Instant {
            static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            *START.get_or_init(Instant::now)
        }
        life.since = at(0);
        assert!(life.sign(1, at(4)).is_ok());
        assert!(life.sign(1, at(8)).is_ok());
        assert!(matches!(life.sign(1, at(9)), Err(LoadError::Stalled(_))));
    }

    #[test]
    fn a_refused_connection_names_the_place() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        drop(listener);
        let shape = Shape { endpoints: vec![Endpoint::plain(authority.clone())], conns: 2, clients: 2, threads: 2 };
        let error = Load::connect(&shape, Duration::from_secs(1)).err().expect("nobody listens").to_string();
        assert!(error.contains(&authority) && error.contains("--endpoints"), "{error}");
    }
}
