//! TLS 1.3 where a key of 32 bytes stands for a certificate (RFC 7250): `docs/adr/0005-transport.md`.
//!
//! Whoever dials accepts one key and no other. Whoever accepts has the other side prove its key, whatever it is; who
//! may come in is said by what is spoken on the connection. Nothing is resumed and nothing sent early: each
//! connection proves both keys anew.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerIncompatible, ServerConfig, SignatureAlgorithm, SignatureScheme,
    version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::connection::{Connection, NotTls};

/// An Ed25519 public key.
pub type Key = [u8; 32];

/// Signs what a handshake asks the own key to sign.
type Prove = dyn Fn(&[u8]) -> Option<[u8; 64]> + Send + Sync;

/// What stands before the 32 bytes of an Ed25519 key in its DER encoding (RFC 8410).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// The name that is dialled plays no part: TLS wants one, and this is nobody's.
const NAME: &str = "elea.invalid";

/// Why a connection was not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// Somebody else than was dialled has answered, and has proved its key.
    #[error("whoever answers has another key")]
    OtherKey(Key),
    /// What came is not TLS: the connection as it was, with everything that came still to be read.
    #[error("what it says is not encrypted")]
    NotTls(Box<Connection>),
    /// It speaks TLS, but another version of what is spoken in it.
    #[error("it, or somebody on the way, says that it speaks another version of the protocol")]
    OtherProtocol,
    /// It speaks another kind of TLS.
    #[error("its TLS is not Elea's ({0})")]
    OtherTls(String),
    /// What came does not verify, or was changed on the way.
    #[error("the handshake failed ({0})")]
    Broken(String),
    /// The network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Which cryptography is used. It has X25519; whoever fears that a later computer reads what is recorded today
/// changes it here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A key pair as both ends of a connection use it.
#[derive(Clone, Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    protocols: Vec<Vec<u8>>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// The identity of this key. `prove` signs with it what a handshake asks for; it answers `None` where that is
    /// something else, or the key cannot. `protocols` are the names of what this end speaks, best first; of those
    /// that both ends have, the one is spoken that the end likes best that was dialled.
    ///
    /// # Panics
    /// The library has no TLS 1.3, which it has.
    #[must_use]
    pub fn new(
        key: Key,
        prove: impl Fn(&[u8]) -> Option<[u8; 64]> + Send + Sync + 'static,
        protocols: &[String],
    ) -> Self {
        let held = Arc::new(Held { spki: spki_of(&key), prove: Arc::new(prove) });
        let spki = CertificateDer::from(held.spki.clone());
        let certified = Arc::new(CertifiedKey::new(vec![spki], held));
        let protocols: Vec<_> = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(Arc::new(Verifier::any()))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(
                &certified,
            ))));
        server.alpn_protocols.clone_from(&protocols);
        // A resumed connection would be the identity of the one before, unproved.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Self { certified, protocols, server: Arc::new(server) }
    }

    /// What it takes to dial the holder of this key.
    ///
    /// # Panics
    /// The library has no TLS 1.3, which it has.
    #[must_use]
    pub fn expecting(&self, key: Key) -> Expecting {
        let own = Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.certified)));
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::only(key)))
            .with_client_cert_resolver(own);
        client.alpn_protocols.clone_from(&self.protocols);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Expecting { identity: self.clone(), client: Arc::new(client) }
    }

    /// TLS lets also those through that name no protocol.
    fn check_protocol(&self, spoken: Option<&[u8]>) -> Result<(), SecureError> {
        match spoken.is_some_and(|spoken| self.protocols.iter().any(|one| one == spoken)) {
            true => Ok(()),
            false => Err(SecureError::OtherProtocol),
        }
    }

    /// The end of whoever accepts, without a socket: for somebody who carries the bytes himself.
    ///
    /// # Errors
    /// The library cannot begin.
    pub fn accepting(&self) -> io::Result<rustls::Connection> {
        let end = rustls::ServerConnection::new(Arc::clone(&self.server));
        end.map(Into::into).map_err(io::Error::other)
    }

    /// Encrypts a connection that was accepted, and says whose it is. May take as long as the other side likes.
    ///
    /// # Errors
    /// The other side does not prove a key, or the connection fails.
    pub async fn accept(&self, connection: Connection) -> Result<(Connection, Key), SecureError> {
        let wire = connection.into_wire().ok_or_else(encrypted_already)?;
        let stream = TlsAcceptor::from(Arc::clone(&self.server)).accept(wire).await;
        let stream = stream.map_err(secure_error)?;
        self.check_protocol(stream.get_ref().1.alpn_protocol())?;
        let proved = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let key = proved.and_then(|spki| key_of(spki.as_ref()));
        let key = key.ok_or_else(|| SecureError::Broken("no key was proved".to_owned()))?;
        let stream = tokio_rustls::TlsStream::Server(stream);
        Ok((Connection::encrypted(stream), key))
    }
}

/// What it takes to dial the holder of one key.
#[derive(Clone, Debug)]
pub struct Expecting {
    identity: Identity,
    client: Arc<ClientConfig>,
}

impl Expecting {
    /// The end of whoever dials, without a socket: for somebody who carries the bytes himself.
    ///
    /// # Errors
    /// The library cannot begin.
    pub fn dialling(&self) -> io::Result<rustls::Connection> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let end = rustls::ClientConnection::new(Arc::clone(&self.client), name);
        end.map(Into::into).map_err(io::Error::other)
    }

    /// Encrypts a connection that was dialled, if the holder of the key is at its other end. May take as long as that
    /// one likes.
    ///
    /// # Errors
    /// It is somebody else, or speaks otherwise, or the connection fails.
    pub async fn encrypt(&self, connection: Connection) -> Result<Connection, SecureError> {
        let mut wire = connection.into_wire().ok_or_else(encrypted_already)?;
        wire.expects_tls = true;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.client));
        match connector.connect(name, wire).into_fallible().await {
            Ok(stream) => {
                self.identity.check_protocol(stream.get_ref().1.alpn_protocol())?;
                Ok(Connection::encrypted(tokio_rustls::TlsStream::Client(stream)))
            }
            Err((error, mut wire)) if error.get_ref().is_some_and(|why| why.is::<NotTls>()) => {
                wire.expects_tls = false;
                Err(SecureError::NotTls(Box::new(Connection::plain(wire))))
            }
            Err((error, _)) => Err(secure_error(error)),
        }
    }
}

fn encrypted_already() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the connection is encrypted already")
}

/// What went wrong, in words that a person can do something with.
fn secure_error(error: io::Error) -> SecureError {
    let why = error.get_ref().and_then(|why| why.downcast_ref::<Error>());
    match why {
        None => SecureError::Io(error),
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            match why.downcast_ref::<OtherKey>() {
                Some(OtherKey(key)) => SecureError::OtherKey(*key),
                None => SecureError::Broken(why.to_string()),
            }
        }
        Some(
            Error::NoApplicationProtocol
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol),
        ) => SecureError::OtherProtocol,
        Some(why @ Error::PeerIncompatible(_)) => SecureError::OtherTls(why.to_string()),
        Some(why) => SecureError::Broken(why.to_string()),
    }
}

fn spki_of(key: &Key) -> Vec<u8> {
    [&ED25519_SPKI[..], key].concat()
}

/// The key in a DER encoding; `None` where it is none of Ed25519.
fn key_of(spki: &[u8]) -> Option<Key> {
    spki.strip_prefix(&ED25519_SPKI)?.try_into().ok()
}

/// The own key pair, as the library wants it.
struct Held {
    spki: Vec<u8>,
    prove: Arc<Prove>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl SigningKey for Held {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || -> Box<dyn Signer> { Box::new(Proving(Arc::clone(&self.prove))) };
        offered.contains(&SignatureScheme::ED25519).then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.spki[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

struct Proving(Arc<Prove>);

impl fmt::Debug for Proving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proving").finish_non_exhaustive()
    }
}

impl Signer for Proving {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = (self.0)(message);
        signature
            .map(|signature| signature.to_vec())
            .ok_or_else(|| Error::General("the key does not sign that".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Why a key that was proved is not the right one.
#[derive(Debug, thiserror::Error)]
#[error("another key")]
struct OtherKey(Key);

/// Checks what the other side shows and signs.
#[derive(Debug)]
struct Verifier {
    expected: Option<Key>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn any() -> Self {
        Self { expected: None, algorithms: provider().signature_verification_algorithms }
    }

    fn only(key: Key) -> Self {
        Self { expected: Some(key), ..Self::any() }
    }

    /// Whether what stands in the place of a certificate is a key. Whose it is counts when it has signed.
    fn check_key(spki: &CertificateDer<'_>) -> Result<Key, Error> {
        key_of(spki.as_ref()).ok_or_else(|| CertificateError::BadEncoding.into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Self::check_key(spki)?;
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        let valid =
            verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)?;
        match self.expected {
            Some(expected) if expected != key => {
                Err(CertificateError::Other(OtherError(Arc::new(OtherKey(key)))).into())
            }
            _ => Ok(valid),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check_key(spki).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, spki, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check_key(spki).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, spki, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ed25519_dalek::{Signer as _, SigningKey};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn pair(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn key(number: u8) -> Key {
        pair(number).verifying_key().to_bytes()
    }

    fn speaking<const N: usize>(number: u8, protocols: [&str; N]) -> Identity {
        let prove = move |transcript: &[u8]| Some(pair(number).sign(transcript).to_bytes());
        Identity::new(key(number), prove, &protocols.map(str::to_owned))
    }

    fn identity(number: u8) -> Identity {
        speaking(number, ["elea/test"])
    }

    async fn listener() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("bound");
        (listener, at)
    }

    async fn accepted(listener: &TcpListener) -> Connection {
        let (socket, _) = listener.accept().await.expect("somebody dials");
        Connection::new(socket, PATIENCE).expect("a socket")
    }

    async fn dialled(at: std::net::SocketAddr) -> Connection {
        Connection::new(TcpStream::connect(at).await.expect("it listens"), PATIENCE)
            .expect("a socket")
    }

    type Ends = (Result<Connection, SecureError>, Result<(Connection, Key), SecureError>);

    /// Somebody dials the holder of key `expected` as 1, and reaches 2, who says what it is with `host`.
    async fn meet(host: &Identity, expected: u8) -> Ends {
        let (listener, at) = listener().await;
        let accept = async { host.accept(accepted(&listener).await).await };
        let dial = async { identity(1).expecting(key(expected)).encrypt(dialled(at).await).await };
        tokio::join!(dial, accept)
    }

    #[tokio::test]
    async fn both_ends_know_whom_they_speak_to_and_that_it_is_this_connection() {
        let (dialled, accepted) = meet(&identity(2), 2).await;
        let (near, (far, who)) = (dialled.expect("it is 2"), accepted.expect("it is somebody"));
        assert_eq!(who, key(1));
        let binding = near.binding().expect("shaken").expect("encrypted");
        assert_eq!(far.binding().expect("shaken"), Some(binding));
        let (other, _) = meet(&identity(2), 2).await;
        assert_ne!(other.expect("it is 2").binding().expect("shaken"), Some(binding));

        // Much both ways at the same time, and an end.
        let (mut read, mut write) = near.split();
        let (mut far_read, mut far_write) = far.split();
        let much = vec![7; 3 << 20];
        let say = async {
            write.write_all(&much).await.expect("it is read");
            write.shutdown().await.expect("it is read");
        };
        let echo = async {
            let copied = tokio::io::copy(&mut far_read, &mut far_write).await;
            far_write.shutdown().await.expect("it is read");
            copied.expect("it ends well")
        };
        let mut heard = Vec::new();
        let (_, copied, read) = tokio::join!(say, echo, read.read_to_end(&mut heard));
        assert_eq!((copied, read.expect("it ends well")), (3 << 20, 3 << 20));
        assert_eq!(heard, much);
    }

    #[tokio::test]
    async fn somebody_else_is_not_spoken_to_and_is_named() {
        let (dialled, accepted) = meet(&identity(2), 3).await;
        assert!(
            matches!(dialled, Err(SecureError::OtherKey(other)) if other == key(2)),
            "{dialled:?}"
        );
        assert!(accepted.is_err(), "it was not told that all is well");
        // Who shows a key and cannot sign with it.
        let prove = |transcript: &[u8]| Some(pair(2).sign(transcript).to_bytes());
        let (dialled, _) = meet(&Identity::new(key(3), prove, &["elea/test".to_owned()]), 3).await;
        assert!(matches!(dialled, Err(SecureError::Broken(_))), "{dialled:?}");
        let (dialled, _) =
            meet(&Identity::new(key(3), |_| None, &["elea/test".to_owned()]), 3).await;
        assert!(dialled.is_err());
        let (dialled, _) = meet(&speaking(2, ["elea/other"]), 2).await;
        assert!(matches!(dialled, Err(SecureError::OtherProtocol)), "{dialled:?}");
    }

    #[tokio::test]
    async fn the_best_is_spoken_that_both_know() {
        let host = speaking(2, ["elea/3", "elea/test", "elea/1"]);
        let (dialled, accepted) = meet(&host, 2).await;
        let (dialled, (accepted, _)) = (dialled.expect("it is met"), accepted.expect("likewise"));
        assert_eq!(dialled.protocol(), Some(&b"elea/test"[..]));
        assert_eq!(dialled.protocol(), accepted.protocol());
    }

    #[tokio::test]
    async fn who_dials_has_to_prove_its_key_too() {
        let (listener, at) = listener().await;
        let host = identity(2);
        let prove = |transcript: &[u8]| Some(pair(9).sign(transcript).to_bytes());
        let liar = Identity::new(key(1), prove, &["elea/test".to_owned()]);
        let accept = async { host.accept(accepted(&listener).await).await };
        let dial = async { liar.expecting(key(2)).encrypt(dialled(at).await).await };
        let (_dialled, accepted) = tokio::join!(dial, accept);
        assert!(matches!(accepted, Err(SecureError::Broken(_))), "{accepted:?}");
    }

    #[tokio::test]
    async fn what_is_said_in_clear_can_still_be_read() {
        let (listener, at) = listener().await;
        let host = async {
            let mut connection = accepted(&listener).await;
            connection.write_all(b"\0\0\0\x05sorry").await.expect("it is read");
            connection
        };
        let dial = async { identity(1).expecting(key(2)).encrypt(dialled(at).await).await };
        let (host, dialled) = tokio::join!(host, dial);
        let Err(SecureError::NotTls(mut connection)) = dialled else { panic!("{dialled:?}") };
        drop(host);
        let mut said = [0; 9];
        connection.read_exact(&mut said).await.expect("it was said");
        assert_eq!(&said, b"\0\0\0\x05sorry");
        assert_eq!(connection.binding().expect("plain"), None);
    }

    /// Who turns one bit of what passes, says nothing by it: an end hears that the connection broke.
    #[tokio::test]
    async fn a_turned_bit_is_noticed_wherever_it_is() {
        // The last one is beyond all that is said.
        for place in [3, 60, 90, 150, 250, 400, 600, 800, 5000] {
            let (listener, at) = listener().await;
            let (middle, between) = self::listener().await;
            let pass = async {
                let (near, _) = middle.accept().await.expect("somebody dials");
                let far = TcpStream::connect(at).await.expect("it listens");
                let (mut near_read, mut near_write) = near.into_split();
                let (mut far_read, mut far_write) = far.into_split();
                let back = async {
                    let (mut passed, mut buffer) = (0, [0; 1 << 12]);
                    while let Ok(read @ 1..) = far_read.read(&mut buffer).await {
                        if (passed..passed + read).contains(&place) {
                            buffer[place - passed] ^= 1;
                        }
                        passed += read;
                        if near_write.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                    drop(near_write);
                    passed
                };
                let there = async {
                    let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
                    drop(far_write);
                };
                tokio::join!(back, there).0
            };
            let host = identity(2);
            let serve = async {
                if let Ok((mut connection, _)) = host.accept(accepted(&listener).await).await {
                    let _ = connection.write_all(&[b'w'; 400]).await;
                    let _ = connection.shutdown().await;
                }
            };
            let dial = async {
                let expecting = identity(1).expecting(key(2));
                let mut connection = expecting.encrypt(dialled(between).await).await.ok()?;
                let mut heard = Vec::new();
                connection.read_to_end(&mut heard).await.ok().map(|_| heard)
            };
            let (passed, (), heard) = tokio::join!(pass, serve, dial);
            assert_eq!(heard.is_some(), place > passed, "byte {place} of {passed}");
        }
    }
}
