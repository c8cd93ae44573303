use super::*;
use crate::client::{self, AUTO_FREE, META_POOL};
use crate::entries::{free, malloc};
use memcheck_abi::event::{ErrorEvent, ExitReport, Kind, Place};
use memcheck_rt::report::host::drain;

fn place_of(addr: u64) -> (u32, u64, u64) {
    let mut event = ErrorEvent::new(Kind::InvalidRead);
    event.addr = addr;
    crate::describe(&mut event);
    (event.place, event.block.addr, event.block.size)
}

const LIVE: u32 = Place::LiveBlock as u32;
const FREED: u32 = Place::FreedBlock as u32;
const CLIENT: u32 = Place::ClientBlock as u32;

#[test]
fn declared_blocks() {
    let (_guard, ctx) = start();
    let outer = malloc(1000);
    let p = outer + 500;
    shadow::make_noaccess(outer, 1000);
    let before = crate::totals();
    client::malloclike_block(ctx, p, 40, 8, true);
    assert_a(p, 40, false);
    assert_v(p, 40, 0);
    assert_a(p - 8, 8, true);
    assert_eq!(place_of(p + 10), (LIVE, p, 40));
    assert_eq!(place_of(p + 40), (LIVE, p, 40));
    assert_eq!(place_of(outer + 10), (LIVE, outer, 1000));
    client::resizeinplace_block(ctx, p, 40, 60, 8);
    assert_a(p, 60, false);
    assert_v(p + 40, 20, 0xff);
    assert_eq!(place_of(p + 59), (LIVE, p, 60));
    client::resizeinplace_block(ctx, p, 60, 20, 8);
    assert_a(p + 20, 40, true);
    let mut report = ExitReport::default();
    crate::report(&mut report);
    assert!(crate::exit::listed(&report).iter().any(|b| b.addr == p && b.size == 20));
    client::freelike_block(ctx, p, 8);
    assert_a(p, 20, true);
    assert_eq!(place_of(p + 1), (FREED, p, 20));
    assert_eq!(drain().0, 0);
    client::freelike_block(ctx, p, 8);
    assert_eq!(drain().1.kind, Kind::InvalidFree as u32);
    let after = crate::totals();
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 2, 40));
    free(outer);
}

#[test]
fn the_wrong_free() {
    let (_guard, ctx) = start();
    let p = malloc(100);
    client::freelike_block(ctx, p, 0);
    assert_eq!(drain().1.kind, Kind::MismatchedFree as u32);
    assert_a(p, 100, true);
    let q = malloc(100);
    client::malloclike_block(ctx, q + 48, 16, 0, false);
    free(q + 48);
    assert_eq!(drain().1.kind, Kind::MismatchedFree as u32);
    free(q);
    assert_eq!(drain().0, 0);
}

#[test]
fn pools() {
    let (_guard, ctx) = start();
    let area = malloc(1000);
    shadow::make_noaccess(area, 1000);
    client::mempool_alloc(ctx, area, area + 100, 20);
    assert_eq!(drain().1.kind, Kind::Mempool as u32);
    client::create_mempool(area, 8, false, 0);
    assert!(client::mempool_exists(area) && !client::mempool_exists(area + 1));
    client::mempool_alloc(ctx, area, area + 100, 20);
    client::mempool_alloc(ctx, area, area + 200, 30);
    assert_a(area + 100, 20, false);
    assert_eq!(place_of(area + 105), (CLIENT, area + 100, 20));
    assert_eq!(place_of(area + 121), (CLIENT, area + 100, 20));
    client::mempool_free(ctx, area, area + 100);
    assert_a(area + 100, 20, true);
    assert_eq!(place_of(area + 105), (FREED, area + 100, 20));
    client::mempool_free(ctx, area, area + 100);
    assert_eq!(drain().1.kind, Kind::InvalidFree as u32);
    client::mempool_change(ctx, area, area + 200, area + 300, 40);
    assert_eq!(place_of(area + 335), (CLIENT, area + 300, 40));
    assert_a(area + 200, 30, false);
    assert_a(area + 300, 40, true);
    shadow::make_defined(area + 300, 40);
    client::mempool_trim(ctx, area, area + 310, 100);
    assert_a(area + 300, 10, true);
    assert_a(area + 310, 30, false);
    client::move_mempool(ctx, area, area + 1);
    assert!(client::mempool_exists(area + 1));
    client::mempool_trim(ctx, area + 1, area + 315, 5);
    assert_a(area + 310, 30, true);
    client::mempool_alloc(ctx, area + 1, area + 400, 40);
    client::destroy_mempool(ctx, area + 1);
    assert_a(area + 400, 40, true);
    assert_eq!(drain().0, 0);
    free(area);
}

#[test]
fn meta_pools_free_what_is_inside() {
    let (_guard, ctx) = start();
    let area = malloc(1000);
    client::create_mempool(area, 0, false, META_POOL | AUTO_FREE);
    client::mempool_alloc(ctx, area, area, 500);
    client::malloclike_block(ctx, area, 100, 0, true);
    client::malloclike_block(ctx, area + 600, 100, 0, true);
    client::mempool_free(ctx, area, area);
    assert_eq!(place_of(area + 50).0, FREED);
    assert_eq!(place_of(area + 650), (LIVE, area + 600, 100));
    client::freelike_block(ctx, area + 600, 0);
    client::destroy_mempool(ctx, area);
    assert_eq!(drain().0, 0);
    free(area);
}

#[test]
fn named_areas() {
    let (_guard, ctx) = start();
    let area = malloc(100);
    let index = client::create_block(ctx, area + 10, 20, b"thing");
    let mut event = ErrorEvent::new(Kind::InvalidRead);
    event.addr = area + 12;
    crate::describe(&mut event);
    assert_eq!((event.place, &event.name2[..6]), (CLIENT, b"thing\0".as_slice()));
    assert!(client::discard_block(index) && !client::discard_block(index));
    assert_eq!(place_of(area + 12), (LIVE, area, 100));
    free(area);
}
