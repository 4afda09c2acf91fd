-- Read a batch: {hash, request, results so far, workers, gate of its queues or its client's budget, gate's end}, or {}
-- where there is none.
-- Of several queues it tells how many workers the best served has, and a gate only if all are closed.
-- ARGV: now, batch.
local now, batch = clock(ARGV[1]), ARGV[2]
local hash = redis.call('HGETALL', batch_key(batch))
if #hash == 0 then return {} end
local workers, gate, ends, is_open = 0, false, 0, false
for queue in redis.call('HGET', batch_key(batch), 'queue'):gmatch('[^,]+') do
  local reason, until_ms = shown_gate(queue, now)
  is_open = is_open or not reason
  if reason and not gate then gate, ends = reason, until_ms end
  workers = math.max(workers, redis.call('ZCOUNT', queue_key(queue) .. ':workers', now, '+inf'))
end
local client_ends = has_budgets() and exhausted(redis.call('HGET', batch_key(batch), 'client') or 'default', 0, now)
if client_ends and is_open then gate, ends, is_open = 'budget_exhausted', client_ends, false end
return {hash, redis.call('GET', batch_key(batch) .. ':request'), redis.call('LLEN', batch_key(batch) .. ':results'),
  workers, not is_open and gate, ends}
