//! Encrypted connections: who is let in, who is spoken to, and what those are told who are not.

use std::time::Duration;

use elea_net::{Connection, Identity, SecureError};
use elea_protocol::codec::{self, FRAME_MAX};
use elea_protocol::id::ReplicaId;
use elea_protocol::message::{
    Challenge, Disagreement, Farewell, KnockBody, NodeStatus, Origin, ToClient, ToReplica,
    Transport, WireVersions,
};
use elea_protocol::seal::{sign_hello, sign_knock};
use elea_protocol::signature::{SecretKey, Signer as _};
use elea_replica::{Counter, Limits, Node};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::support::{Cluster, Wire, client_id, client_key, hello_body, test};

const PATIENCE: Duration = Duration::from_secs(60);

type Encrypted = Framed<Connection, LengthDelimitedCodec>;

fn identity(key: &SecretKey) -> Identity {
    let (public, key) = (key.public_key().0, SecretKey::from_bytes(&key.to_bytes()));
    let prove = move |transcript: &[u8]| key.sign_handshake(transcript).map(|signed| signed.0);
    Identity::new(public, prove, &WireVersions::OWN.application_protocols())
}

fn encrypted_cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.transport = Transport::Encrypted;
    cluster
}

fn framed(connection: Connection) -> Encrypted {
    let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec();
    Framed::new(connection, codec)
}

async fn say(wire: &mut Encrypted, word: &ToReplica) {
    wire.send(codec::encode(word).expect("small")).await.expect("it is read");
}

async fn hear(wire: &mut Encrypted) -> Option<ToClient> {
    let frame = wire.next().await?.ok()?;
    Some(codec::decode(&frame).expect("a replica sends nothing malformed"))
}

/// Knocks as the first client and encrypts as the holder of `key`.
async fn knock(cluster: &Cluster, key: &SecretKey) -> Result<Encrypted, SecureError> {
    let socket = TcpStream::connect(cluster.address(0)).await.expect("it listens");
    knock_on(socket, cluster, key).await
}

/// The same on a socket that was connected.
async fn knock_on(
    socket: TcpStream,
    cluster: &Cluster,
    key: &SecretKey,
) -> Result<Encrypted, SecureError> {
    let mut wire = framed(Connection::new(socket, PATIENCE).expect("a socket"));
    let origin = Origin::Client(client_id(0));
    let body = KnockBody {
        versions: WireVersions::OWN,
        origin,
        to: ReplicaId(0),
        transport: Transport::Encrypted,
    };
    let knock = sign_knock(&client_key(0), cluster.membership.genesis(), body);
    say(&mut wire, &ToReplica::Knock(knock)).await;
    let expected = cluster.key(0).public_key().0;
    identity(key).expecting(expected).encrypt(wire.into_inner()).await.map(framed)
}

/// Says hello as a client, with a signature for this connection or for another.
async fn hello(cluster: &Cluster, wire: &mut Encrypted, number: u8, nonce: Option<[u8; 32]>) {
    let binding = wire.get_ref().binding().expect("shaken").expect("encrypted");
    let (origin, nonce) = (Origin::Client(client_id(number)), nonce.unwrap_or(binding));
    let body = hello_body(origin, ReplicaId(0), nonce);
    let hello = sign_hello(&client_key(number), cluster.membership.genesis(), body);
    say(wire, &ToReplica::Hello(hello)).await;
}

async fn alone() -> (Cluster, Node) {
    let mut cluster = encrypted_cluster();
    let node = cluster.start(0).await;
    (cluster, node)
}

#[test]
fn replicas_find_each_other_and_a_client_is_let_in_that_proves_its_key() {
    test(async {
        let mut cluster = encrypted_cluster();
        let nodes = cluster.start_all().await;
        for node in &nodes {
            node.ready().await.expect("it reaches the others");
        }
        let mut wire = knock(&cluster, &client_key(0)).await.expect("it is the replica");
        hello(&cluster, &mut wire, 0, None).await;
        let Some(ToClient::Challenge(challenge)) = hear(&mut wire).await else { panic!() };
        assert_eq!(challenge.versions, WireVersions::OWN);
        assert_eq!(hear(&mut wire).await, Some(ToClient::Welcome));
        say(&mut wire, &ToReplica::AskStatus(5)).await;
        let Some(ToClient::Status(status)) = hear(&mut wire).await else { panic!() };
        assert_eq!(status.body.transport, Transport::Encrypted);
        for node in nodes {
            assert_eq!(node.counters().get(Counter::TlsFailed), 0);
            node.stop().await.expect("a clean stop");
        }
        // It is told so before the connection ends.
        assert_eq!(hear(&mut wire).await, Some(ToClient::Farewell(Farewell::Stopping)));
        assert_eq!(hear(&mut wire).await, None);
    });
}

#[test]
fn a_hello_has_to_be_for_this_connection_and_of_the_key_that_was_proved() {
    test(async {
        let (cluster, node) = alone().await;
        // One that was signed for another connection; the key of another client; and a client that is another than
        // the one that knocked.
        let cases = [
            (client_key(0), 0, Some([7; 32]), Farewell::NotAdmitted, Counter::HelloMalformed),
            (client_key(1), 0, None, Farewell::NotAdmitted, Counter::HelloUnknownSigner),
            (client_key(1), 1, None, Farewell::Misbehaviour, Counter::HelloMalformed),
        ];
        for (key, number, nonce, word, counter) in cases {
            let before = node.counters().get(counter);
            let mut wire = knock(&cluster, &key).await.expect("any key is one");
            hello(&cluster, &mut wire, number, nonce).await;
            assert!(matches!(hear(&mut wire).await, Some(ToClient::Challenge(_))));
            assert_eq!(hear(&mut wire).await, Some(ToClient::Farewell(word)));
            assert_eq!(node.counters().get(counter), before + 1);
        }
        node.stop().await.expect("a clean stop");
    });
}

#[test]
fn who_is_not_known_or_does_not_encrypt_is_told_so_and_costs_no_handshake() {
    test(async {
        let (cluster, node) = alone().await;
        let mut wire = Wire::silent(cluster.address(0)).await;
        wire.challenged(&cluster, 0).await;
        let word = Farewell::OtherTransport(Transport::Encrypted);
        assert_eq!(wire.farewell().await, Some(word));
        assert_eq!(node.counters().get(Counter::OtherTransport), 1);
        assert!(word.to_string().contains("encrypted"));

        let stranger = SecretKey::from_bytes(&[77; 32]);
        let mut wire = Wire::silent(cluster.address(0)).await;
        let origin = Origin::Client(stranger.public_key().into());
        wire.knock(0, cluster.membership.genesis(), origin, &stranger).await;
        wire.challenge().await;
        assert_eq!(wire.farewell().await, Some(Farewell::NotAdmitted));

        // Behind a good knock comes what is not TLS.
        let mut wire = Wire::silent(cluster.address(0)).await;
        let body = KnockBody {
            versions: WireVersions::OWN,
            origin: Origin::Client(client_id(0)),
            to: ReplicaId(0),
            transport: Transport::Encrypted,
        };
        let knock = sign_knock(&client_key(0), cluster.membership.genesis(), body);
        wire.send(&ToReplica::Knock(knock)).await;
        wire.send_raw(&[0xa5; 300]).await;
        assert!(wire.frames.next().await.is_none_or(|said| said.is_err()));
        assert_eq!(node.counters().get(Counter::TlsFailed), 1);
        node.stop().await.expect("a clean stop");
    });
}

/// Asks a replica how it is until that is as it should be.
async fn wait_for(node: &Node, is_good: impl Fn(&NodeStatus) -> bool) {
    let watcher = node.watcher();
    while !watcher.report().await.is_some_and(|report| is_good(&report.status)) {}
}

/// Accepts whoever dials, and answers with this.
async fn answering(listener: TcpListener, said: Vec<u8>) {
    let mut all = Vec::new();
    while let Ok((mut socket, _)) = listener.accept().await {
        socket.write_all(&said).await.expect("it is read");
        all.push(socket);
    }
}

fn listener(cluster: &mut Cluster, id: u8) -> TcpListener {
    let listener = cluster.listener(id);
    listener.set_nonblocking(true).expect("a socket");
    TcpListener::from_std(listener).expect("a socket")
}

#[test]
fn a_replica_with_another_key_is_not_spoken_to() {
    test(async {
        let mut cluster = encrypted_cluster();
        // Whoever listens at the address of r1 has the key of r2, and would gladly be r1.
        let listener = listener(&mut cluster, 1);
        let impostor = identity(cluster.key(2));
        let node = cluster.start(0).await;
        let (socket, _) = listener.accept().await.expect("it dials");
        let mut connection = Connection::new(socket, PATIENCE).expect("a socket");
        let length = connection.read_u32().await.expect("a knock");
        let mut knock = vec![0; usize::try_from(length).expect("short")];
        connection.read_exact(&mut knock).await.expect("a knock");
        assert!(impostor.accept(connection).await.is_err(), "it heard something");
        wait_for(&node, |_| node.counters().get(Counter::DialFailed) > 0).await;
        assert_eq!(node.counters().get(Counter::LinksUp), 0);
        node.stop().await.expect("a clean stop");
    });
}

#[test]
fn what_an_older_version_says_in_clear_is_understood() {
    test(async {
        let mut cluster = encrypted_cluster();
        let challenge = Challenge {
            versions: WireVersions { lowest: 1, newest: WireVersions::OWN.lowest - 1 },
            genesis: *cluster.membership.genesis(),
            replica: ReplicaId(1),
            nonce: [3; 32],
        };
        let frame = codec::encode(&ToClient::Challenge(challenge)).expect("small");
        let length = u32::try_from(frame.len()).expect("small").to_be_bytes();
        let said = [&length[..], &frame].concat();
        let playing = tokio::spawn(answering(listener(&mut cluster, 1), said));
        let node = cluster.start(0).await;
        let differs = |other: &Disagreement| other.replica == ReplicaId(1);
        wait_for(&node, |status| status.disagreements.iter().any(differs)).await;
        playing.abort();
        node.stop().await.expect("a clean stop");
    });
}

#[test]
fn a_client_that_neither_reads_nor_keeps_to_tls_loses_its_connection() {
    test(async {
        let limits =
            Limits { answers_queued: 64, questions_per_second: 1 << 20, ..Limits::default() };
        let mut cluster = encrypted_cluster();
        let node = cluster.start_with(0, limits).await.expect("it starts");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket");
        let socket = socket.connect(cluster.address(0).parse().expect("an address")).await;
        let mut wire = knock_on(socket.expect("it listens"), &cluster, &client_key(0))
            .await
            .expect("it is the replica");
        hello(&cluster, &mut wire, 0, None).await;
        // Until nothing more can be written to it.
        let mut nonce = 0;
        while node.counters().get(Counter::AnswerDropped) == 0 {
            nonce += 1;
            say(&mut wire, &ToReplica::AskStatus(nonce)).await;
        }
        // Whoever reads finds that, while whoever writes waits for room.
        let socket = wire.get_ref().socket();
        let record = [&[23, 3, 3, 0, 64][..], &[0xa5; 64]].concat();
        socket.writable().await.expect("a socket");
        assert_eq!(socket.try_write(&record).expect("a little"), record.len());
        let mut buffer = vec![0; 1 << 16];
        loop {
            socket.readable().await.expect("a socket");
            match socket.try_read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // Its end, however it says so.
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        node.stop().await.expect("a clean stop");
    });
}
