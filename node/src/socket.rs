//! The command socket: the running node's end and the command line's end.

use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::cli::output::Output;
use crate::fault::{Exit, Fault, Outcome};
use crate::order::{Line, Lines, ORDER_BYTES_MAX, Order, exit_of};

/// Orders at the same time.
pub const ORDERS_MAX: usize = 16;

/// Listens for orders and runs each with `execute`.
pub fn listen<E, F>(path: &Path, execute: E) -> Outcome<JoinHandle<()>>
where
    E: Fn(Order, Lines) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Exit, Fault>> + Send + 'static,
{
    let what = format!("Cannot open the command socket {}.", path.display());
    let fix = "Stop the other `hie serve` of this home, or check the folder's permissions.";
    // The store's lock tells that no other node runs here, so a socket that is left over is stale.
    if path.exists() {
        std::fs::remove_file(path).map_err(Fault::because(Exit::Busy, &what, fix))?;
    }
    let listener = UnixListener::bind(path).map_err(Fault::because(Exit::Failed, &what, fix))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(Fault::because(
        Exit::Failed,
        &what,
        fix,
    ))?;
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(ORDERS_MAX));
    Ok(tokio::spawn(async move {
        while let (Ok((stream, _)), Ok(slot)) = (
            listener.accept().await,
            std::sync::Arc::clone(&slots).acquire_owned().await,
        ) {
            let execute = execute.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, execute).await {
                    tracing::debug!(%error, "order ended early");
                }
                drop(slot);
            });
        }
    }))
}

async fn serve<E, F>(stream: UnixStream, execute: E) -> std::io::Result<()>
where
    E: Fn(Order, Lines) -> F + Send + 'static,
    F: Future<Output = Result<Exit, Fault>> + Send + 'static,
{
    let (read, mut write) = stream.into_split();
    let mut order = String::new();
    BufReader::new(read.take(ORDER_BYTES_MAX as u64))
        .read_line(&mut order)
        .await?;
    let (lines, mut out) = Lines::channel();
    let work = match serde_json::from_str::<Order>(&order) {
        Ok(order) => {
            let running = execute(order, lines.clone());
            tokio::spawn(async move { lines.end(&running.await).await })
        }
        Err(error) => {
            let fault = Fault::new(
                Exit::Usage,
                "The order cannot be read.",
                error,
                "Use the same version of the program on both ends.",
            );
            tokio::spawn(async move { lines.end(&Err(fault)).await })
        }
    };
    while let Some(line) = out.recv().await {
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
    }
    work.await.map_err(std::io::Error::other)
}

/// Whether a node listens there.
pub async fn is_served(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

/// Sends an order to the running node and prints its lines.
pub async fn send(path: &Path, order: &Order, output: &Output) -> Outcome<Exit> {
    let what = "The node's answer broke off.";
    let fix = "Check that `hie serve` still runs, and its log.";
    let stream = UnixStream::connect(path).await.map_err(Fault::because(
        Exit::Unreachable,
        "The node does not run.",
        "Start it with `hie serve`.",
    ))?;
    let (read, mut write) = stream.into_split();
    let mut bytes = serde_json::to_vec(order).map_err(Fault::because(
        Exit::Failed,
        "The order cannot be written.",
        "Report this.",
    ))?;
    bytes.push(b'\n');
    write
        .write_all(&bytes)
        .await
        .map_err(Fault::because(Exit::Unreachable, what, fix))?;
    let mut lines = BufReader::new(read).lines();
    let mut printer = Printer { output, bar: None };
    while let Some(text) = lines
        .next_line()
        .await
        .map_err(Fault::because(Exit::Unreachable, what, fix))?
    {
        let line = serde_json::from_str(&text).map_err(Fault::because(Exit::Failed, what, fix))?;
        if let Some(outcome) = printer.print(line) {
            return outcome;
        }
    }
    Err(Fault::new(Exit::Unreachable, what, "the node ended", fix))
}

/// Runs an order in this process and prints its lines.
pub async fn local<F>(output: &Output, work: impl FnOnce(Lines) -> F) -> Outcome<Exit>
where
    F: Future<Output = Result<Exit, Fault>> + Send + 'static,
{
    let (lines, mut out) = Lines::channel();
    let running = tokio::spawn(work(lines));
    let mut printer = Printer { output, bar: None };
    while let Some(line) = out.recv().await {
        printer.print(line);
    }
    running
        .await
        .map_err(|error| Fault::new(Exit::Failed, "The command broke off.", error, "Report this."))?
}

/// Shows lines as they come.
struct Printer<'o> {
    output: &'o Output,
    bar: Option<indicatif::ProgressBar>,
}

impl Printer<'_> {
    fn print(&mut self, line: Line) -> Option<Outcome<Exit>> {
        match line {
            Line::Progress { done, total, words } => {
                let bar = self.bar.get_or_insert_with(|| self.output.progress("Importing", total));
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(words);
                None
            }
            Line::Data { text, value } => {
                self.suspend(|output| output.data(&text, &value));
                None
            }
            Line::Say { words } => {
                self.suspend(|output| output.say(&words));
                None
            }
            Line::Done { exit } => Some(Ok(exit_of(exit))),
            Line::Fault { exit, what, why, fix } => Some(Err(Fault {
                exit: exit_of(exit),
                what,
                why,
                fix,
            })),
        }
    }

    fn suspend(&self, show: impl FnOnce(&Output)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| show(self.output)),
            None => show(self.output),
        }
    }
}
