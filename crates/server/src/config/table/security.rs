//! TLS, origins, host names; tokens and passwords.

use super::Effect::{Nothing, Works};
use super::Kind::{Bool, List, Origins, Set, Text, Unsigned};
use super::{Flag, rows};

const NO_AUTH: &str = "users cannot be switched on in this version";

pub(super) const SECURITY: &[Flag] = rows! { Security:
"cert-file"                     Text, "",      Works, "Certificate (PEM) shown to clients on https URLs; read again when it changes.";
"key-file"                      Text, "",      Works, "Key (PEM) of that certificate.";
"client-cert-file"              Text, "",      Nothing("this member calls itself without TLS, inside its own process"), "Certificate for calls to its own client port.";
"client-key-file"               Text, "",      Nothing("this member calls itself without TLS, inside its own process"), "Key of that certificate.";
"client-cert-auth"              Bool, "false", Works, "Clients must show a certificate of --trusted-ca-file.";
"client-crl-file"               Text, "",      Works, "Revoked client certificates (a DER list); read again on every connection.";
"client-cert-allowed-hostname"  List, "",      Works, "Host names of which a client certificate must carry one.";
"trusted-ca-file"               Text, "",      Works, "CA bundle (PEM) for client certificates; given, clients must show one.";
"auto-tls"                      Bool, "false", Works, "Make a certificate for https URLs in DATA-DIR/fixtures/client.";
"peer-cert-file"                Text, "",      Works, "Certificate (PEM) shown to other members on https peer URLs.";
"peer-key-file"                 Text, "",      Works, "Key (PEM) of that certificate.";
"peer-client-cert-file"         Text, "",      Works, "Certificate (PEM) for calls to other members; empty: that of --peer-cert-file.";
"peer-client-key-file"          Text, "",      Works, "Key (PEM) of that certificate.";
"peer-client-cert-auth"         Bool, "false", Works, "Other members must show a certificate of --peer-trusted-ca-file.";
"peer-trusted-ca-file"          Text, "",      Works, "CA bundle (PEM) for other members; given, they must show a certificate.";
"peer-auto-tls"                 Bool, "false", Works, "Make a certificate for https peer URLs in DATA-DIR/fixtures/peer.";
"peer-crl-file"                 Text, "",      Works, "Revoked certificates of members (a DER list).";
"peer-cert-allowed-cn"          List, "",      Works, "Common names of which a member's certificate must carry one.";
"peer-cert-allowed-hostname"    List, "",      Works, "Host names of which a member's certificate must carry one.";
"peer-skip-client-san-verification" Bool, "false", Works, "Do not compare a member's address with its certificate.";
"self-signed-cert-validity"     Unsigned, "1", Works, "Years that a certificate of --auto-tls is good for.";
"cipher-suites"                 List, "",      Works, "Cipher suites for TLS 1.2, by Go's names; empty: all good ones.";
"tls-min-version"               Text, "TLS1.2", Works, "TLS1.2 or TLS1.3.";
"tls-max-version"               Text, "",      Works, "TLS1.2, TLS1.3, or empty for the newest.";
"cors"                          Origins, "*",  Works, "Origins whose scripts may call from browsers, like https://host:port, or *.";
"host-whitelist"                Set,  "*",     Works, "Host names that plain HTTP requests may ask for, or *.";
};

pub(super) const AUTH: &[Flag] = rows! { Auth:
"auth-token"                    Text,     "simple", Works, "Kind of token: simple. jwt,... is refused in this version.";
"bcrypt-cost"                   Unsigned, "10",     Nothing(NO_AUTH), "Work put into hashing a password, 4 to 31.";
"auth-token-ttl"                Unsigned, "300",    Nothing(NO_AUTH), "Seconds that a simple token lives after its last use.";
};
