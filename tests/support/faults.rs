//! Every fault that a source of lists can have, and what each must lead to: the one table that all tests hold to.

/// What a fetch from such a server must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A list.
    Good,
    /// The next source is asked; the kind of the error that is told about it.
    Unreachable(&'static str),
    /// The run ends; the kind of the error.
    Bad(&'static str),
}

use Outcome::{Bad, Good, Unreachable};

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident => $outcome:expr,)*) => {
        /// One way in which a server behaves, mostly badly.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$fault,)*];

            /// What it must lead to when every document has it.
            pub fn outcome(self) -> Outcome {
                match self { $(Self::$fault => $outcome,)* }
            }
        }
    };
}

faults! {
    /// The real documents, byte for byte, with an ETag that is honoured.
    None => Good,
    /// The same without TLS, which is accepted from loopback.
    PlainHttp => Good,
    /// The same compressed.
    Gzip => Good,
    /// The same behind a redirect to a trailing slash, as Cloudflare did in February 2022.
    TrailingSlash => Good,
    /// 500 once, then good.
    FailsOnce => Good,
    /// 429 with a short "Retry-After" once, then good.
    BusyOnce => Good,
    /// The connection is reset once, then good.
    ResetOnce => Good,

    /// The server's name doesn't exist.
    UnknownName => Unreachable("fetch-dns"),
    /// Nothing listens.
    Refused => Unreachable("fetch-connect"),
    /// The connection is taken and reset at once.
    Reset => Unreachable("fetch-connect"),
    /// The answer is not HTTP.
    NotHttp => Unreachable("fetch-connect"),
    /// The connection is closed instead of an answer.
    NoAnswer => Unreachable("fetch-connect"),
    /// The connection is taken and nothing follows, not even TLS.
    Silent => Unreachable("fetch-timeout"),
    /// The head and half of the body, then nothing.
    Stalled => Unreachable("fetch-timeout"),
    /// One byte after the other, slowly.
    SlowDrip => Unreachable("fetch-timeout"),
    /// The announced length is larger than the body.
    Truncated => Unreachable("fetch-truncated"),
    /// Cut in the middle of a chunk.
    ChunkCut => Unreachable("fetch-truncated"),
    /// A chunk whose length is no number.
    BadChunk => Unreachable("fetch-truncated"),
    /// The connection is reset in the middle of the body.
    ResetMidway => Unreachable("fetch-truncated"),
    /// No length announced, and closed without TLS's goodbye: nobody can say whether that was all.
    NoGoodbye => Unreachable("fetch-truncated"),
    /// A whole HTTP body with half a gzip stream in it.
    GzipCut => Unreachable("fetch-truncated"),
    /// Plain HTTP where TLS is expected.
    NotTls => Unreachable("fetch-tls"),
    /// Nothing newer than TLS 1.1.
    Tls11 => Unreachable("fetch-tls"),
    /// The certificate has expired.
    Expired => Unreachable("fetch-tls"),
    /// The certificate is not valid yet.
    NotYetValid => Unreachable("fetch-tls"),
    /// The certificate is for another name.
    WrongHost => Unreachable("fetch-tls"),
    /// The certificate is signed by itself.
    SelfSigned => Unreachable("fetch-tls"),
    /// The certificate is from an authority that nobody knows.
    UnknownAuthority => Unreachable("fetch-tls"),
    /// A redirect to another host.
    RedirectElsewhere => Unreachable("fetch-redirect"),
    /// A redirect to plain HTTP.
    RedirectToHttp => Unreachable("fetch-redirect"),
    /// A redirect to itself.
    RedirectLoop => Unreachable("fetch-redirect"),
    /// A redirect without a target.
    RedirectNowhere => Unreachable("fetch-redirect"),
    /// 500, always.
    Fails => Unreachable("fetch-status"),
    /// 403, with a page that says why.
    Forbidden => Unreachable("fetch-status"),
    /// 404.
    NotFound => Unreachable("fetch-status"),
    /// 204: a success without a document.
    NoContent => Unreachable("fetch-status"),
    /// 429, always.
    Busy => Unreachable("fetch-status"),
    /// 429 with "Retry-After: 3600".
    BusyForAnHour => Unreachable("fetch-status"),
    /// 304 to somebody who has nothing.
    NotModified => Unreachable("fetch-status"),

    /// 200 and nothing.
    Empty => Bad("list-not-a-list"),
    /// 200 and a web page.
    Html => Bad("list-not-a-list"),
    /// 200 and bytes that are no text.
    Binary => Bad("list-not-a-list"),
    /// Announced as gzip, which it isn't.
    BrokenGzip => Bad("list-not-a-list"),
    /// A gigabyte is announced.
    HugeLength => Bad("fetch-too-large"),
    /// It doesn't end.
    Endless => Bad("fetch-too-large"),
    /// It doesn't end either, and each kilobyte unpacks to a megabyte.
    GzipBomb => Bad("fetch-too-large"),
    /// `"success": false`. The text lists are good.
    SuccessFalse => Bad("fetch-api-failure"),
    /// JSON without IPv4. The text lists are good.
    V4Missing => Bad("list-family-missing"),
    /// JSON with an empty IPv6. The text lists are good.
    V6Empty => Bad("list-family-missing"),
    /// JSON with a text where an array belongs. The text lists are good.
    WrongTypes => Bad("list-not-a-list"),
    /// JSON of another shape. The text lists are good.
    OtherJson => Bad("list-not-a-list"),
    /// JSON that ends early, in a whole HTTP body. The text lists are good.
    HalfJson => Bad("list-not-a-list"),
}
