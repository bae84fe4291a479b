//! Clients that call the server by URL, as `etcdctl` 3.4 does. An HTTP client library would not send that.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::serve;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A request without a message: POST, http, path, and whatever says `authority`.
fn request(stream: u8, authority: &[u8]) -> Vec<u8> {
    let path = "/etcdserverpb.KV/Range";
    let head = [&[0x83, 0x86, 0x04, path.len() as u8], path.as_bytes(), authority].concat();
    let fields = b"\x0f\x10\x10application/grpc\x00\x02te\x08trailers";
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[&head[..], fields].concat())
}

/// The next frame of `stream`: its kind.
async fn answer(socket: &mut TcpStream, stream: u8) -> u8 {
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.expect("the connection lives");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        socket.read_exact(&mut payload).await.expect("a whole frame");
        if head[8] == stream {
            return head[3];
        }
    }
}

#[test]
fn a_url_as_authority_is_served() {
    // RFC 7541, C.6.1 spells this URL in Huffman's code.
    let coded = b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3";
    let coded = [&[0x41, 0x80 | coded.len() as u8], &coded[..]].concat();
    let plain = b"\x41\x15http://127.0.0.1:2379".to_vec();
    for authority in [coded, plain] {
        serve(async |server| {
            let mut socket = TcpStream::connect(server.doors.local_addrs()[0]).await.unwrap();
            let greeting = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
            socket.write_all(&greeting).await.unwrap();
            socket.write_all(&request(1, &authority)).await.unwrap();
            assert_eq!(answer(&mut socket, 1).await, HEADERS);
            // What the first request put into the table.
            socket.write_all(&request(3, &[0xbe])).await.unwrap();
            assert_eq!(answer(&mut socket, 3).await, HEADERS);
            socket.write_all(&request(5, &authority)).await.unwrap();
            assert_eq!(answer(&mut socket, 5).await, HEADERS);
            // None at all.
            socket.write_all(&request(7, &[0x81])).await.unwrap();
            assert_eq!(answer(&mut socket, 7).await, HEADERS);
            // What cannot be mended is refused as ever: `#` alone.
            socket.write_all(&request(9, b"\x01\x82\xff\xaf")).await.unwrap();
            assert_eq!(answer(&mut socket, 9).await, RST_STREAM);
        });
    }
}
