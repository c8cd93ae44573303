//! Programs run under the tracer, without a runtime: what a shell would see.

mod native;
