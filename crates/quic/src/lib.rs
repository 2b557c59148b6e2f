//! A quinn-proto endpoint driven by datagrams and time.
