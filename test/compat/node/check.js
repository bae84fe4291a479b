// Drives a server with the etcd3 package: keys, ranges, transactions, watches,
// leases, locks and elections. Argument: the server's host:port. Exits 0 and
// prints "ok <n>" when each check held.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Etcd3 } from 'etcd3';

const client = new Etcd3({ hosts: process.argv[2], faultHandling: { global: undefined } });
let checks = 0;
const equal = (got, want, what) => {
  assert.deepEqual(got, want, what);
  checks += 1;
};

// A watcher's event as a promise, taken before the change that causes it.
const next = (watcher, event) => once(watcher, event);

async function keys() {
  await client.put('js/a').value('1');
  await client.put('js/b').value('2');
  await client.put('js/c').value('3');
  equal(await client.get('js/b').string(), '2', 'get');
  equal(await client.get('js/none').string(), null, 'a missing key');
  equal(await client.getAll().prefix('js/').strings(), { 'js/a': '1', 'js/b': '2', 'js/c': '3' }, 'a prefix');
  equal(await client.getAll().prefix('js/').limit(2).keys(), ['js/a', 'js/b'], 'a limit');
  equal(await client.getAll().prefix('js/').sort('Key', 'Descend').keys(), ['js/c', 'js/b', 'js/a'], 'a sort');
  equal(await client.getAll().prefix('js/').count(), 3, 'a count');
  equal((await client.delete().key('js/a')).deleted, '1', 'delete');
  equal((await client.delete().prefix('js/')).deleted, '2', 'delete a prefix');
  const odd = Buffer.from([0, 255, 1, 254]);
  await client.put(odd).value(odd);
  equal(Buffer.compare(await client.get(odd).buffer(), odd), 0, 'bytes');
  await assert.rejects(() => client.put('').value('x'), /key is not provided/);
  checks += 1;
}

async function transactions() {
  const create = () =>
    client.if('js/txn', 'Create', '==', 0).then(client.put('js/txn').value('mine')).else(client.get('js/txn')).commit();
  equal((await create()).succeeded, true, 'the first creates');
  const second = await create();
  equal(second.succeeded, false, 'the second does not');
  equal(second.responses[0].response_range.kvs[0].value.toString(), 'mine', 'and reads instead');
}

async function watches() {
  const watcher = await client.watch().prefix('js/w/').create();
  const put = next(watcher, 'put');
  await client.put('js/w/1').value('seen');
  const [kv] = await put;
  equal([kv.key.toString(), kv.value.toString()], ['js/w/1', 'seen'], 'a put is seen');
  const del = next(watcher, 'delete');
  await client.delete().key('js/w/1');
  const [gone] = await del;
  equal(gone.key.toString(), 'js/w/1', 'a deletion is seen');
  await watcher.cancel();
}

async function leases() {
  const lease = client.lease(5);
  await lease.put('js/lease').value('held');
  equal(await client.get('js/lease').string(), 'held', 'under a lease');
  await lease.keepaliveOnce();
  await lease.revoke();
  equal(await client.get('js/lease').string(), null, 'after the revoke');
}

async function locks() {
  const order = [];
  const first = await client.lock('js/lock').ttl(5).acquire();
  await assert.rejects(() => client.lock('js/lock').ttl(5).acquire());
  order.push('held');
  await first.release();
  await client.lock('js/lock').ttl(5).do(() => order.push('held again'));
  equal(order, ['held', 'held again'], 'a lock');

  const election = client.election('js/leader', 5);
  const campaign = election.campaign('node-1');
  await once(campaign, 'elected');
  equal(await election.leader(), 'node-1', 'an election');
  await campaign.resign();
}

async function maintenance() {
  const status = await client.maintenance.status();
  assert.match(status.version, /^3\./);
  checks += 1;
}

for (const part of [keys, transactions, watches, leases, locks, maintenance]) {
  await part().catch((err) => {
    console.error(`${part.name}: ${err.stack}`);
    process.exit(1);
  });
}
client.close();
console.log(`ok ${checks}`);
