-- Read each model's circuit and the workers: {{0 closed, 1 half-open or 2 open, live workers} of each queue, number of
-- draining workers, threads of the others}. ARGV: now, queues…
local now, queues, draining, threads = clock(ARGV[1]), {}, 0, 0
for i = 2, #ARGV do
  local key = queue_key(ARGV[i])
  local ends = redis.call('HGET', key .. ':gates', 'circuit_open')
  local circuit = ends and (tonumber(ends) > now and 2 or 1) or 0
  queues[#queues + 1] = {circuit, redis.call('ZCOUNT', key .. ':workers', now, '+inf')}
end
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', 'dj:workers', now, '+inf')) do
  local described = described_worker(worker)
  if described.draining == true then
    draining = draining + 1
  else
    threads = threads + (tonumber(described.concurrency) or 0)
  end
end
return {queues, draining, threads}
