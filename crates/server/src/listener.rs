//! The socket: how many connections there are at once, how long each may take, and how they end.

use crate::Options;
use crate::api::Api;
use crate::exchange::Edge;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::stall::StallLimited;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// How long to wait where the system has no more connections to give (as when out of file descriptors):
/// trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub struct Server {
    listener: TcpListener,
    options: Options,
    edge: Arc<Edge>,
}

impl Server {
    /// Once this returns, connections are queued; they are answered from [`Server::serve`] on.
    pub async fn bind(address: SocketAddr, options: Options, api: Arc<dyn Api>) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let edge = Arc::new(Edge::new(api, options.clone()));
        Ok(Server { listener, options, edge })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until `shutdown` is over; then takes no more, and returns once those under way are
    /// answered, or the grace is over.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Server { listener, options, edge } = self;
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(options.connections_max));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                (stream, peer, place) = accept(&listener, &places) => {
                    let connection = connection(stream, peer, &options, edge.clone());
                    let connection = graceful.watch(connection);
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%peer, %error, "connection ended");
                        }
                        drop(place);
                    });
                }
            }
        }
        drop(listener);
        if tokio::time::timeout(options.shutdown_grace, graceful.shutdown()).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "requests under way were cut off: the grace is over"
            );
        }
    }
}

/// The next connection once there is a place for it: those too many wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    options: &Options,
    edge: Arc<Edge>,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<> {
    // Answers are written whole; waiting for more to send with them would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no-delay could not be set");
    }
    let service = service_fn(move |request| {
        let edge = edge.clone();
        async move { Ok::<_, Infallible>(edge.answer(request, peer.ip()).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_read_timeout)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(StallLimited::new(stream, options.write_stall_timeout)), service)
}
