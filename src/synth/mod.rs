//! Describes a process and writes a dump of it, for tests.
