-- Read jobs whole. For each id: {hash, request, outcome, attempts, batch request, rank, workers, why its batch is paused, gate,
-- gate's end}, or {} where there is no such job. Rank: how many go before it in its queue. ARGV: now, with batch requests ('1' or '0'), ids…
local now, out = clock(ARGV[1]), {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local hash = redis.call('HGETALL', job_key(id))
  local h = {}
  for j = 1, #hash, 2 do h[hash[j]] = hash[j + 1] end
  local batch = h.batch or ''
  if #hash == 0 or (batch ~= '' and redis.call('ZSCORE', 'dj:staging', batch)) then
    out[#out + 1] = {}
  else
    local rank, workers, paused, gate, ends = false, 0, '', false, 0
    if h.status == 'queued' then
      rank = redis.call('ZRANK', waiting_key(h.queue, h.priority), id)
      for _, step in ipairs({'0', '3'}) do
        if rank and tonumber(step) < tonumber(h.priority) then
          rank = rank + redis.call('ZCARD', waiting_key(h.queue, step))
        end
      end
      gate, ends = shown_gate(h.queue, now)
      workers = redis.call('ZCOUNT', queue_key(h.queue) .. ':workers', now, '+inf')
      local b = batch ~= '' and redis.call('HMGET', batch_key(batch), 'status', 'pause_reason') or {}
      if b[1] == 'paused' then paused = b[2] or 'operator' end
    end
    out[#out + 1] = {hash, redis.call('GET', job_key(id) .. ':request'), redis.call('GET', outcome_key(id)),
      redis.call('LRANGE', job_key(id) .. ':attempts', 0, -1),
      batch ~= '' and ARGV[2] == '1' and redis.call('GET', batch_key(batch) .. ':request'), rank, workers,
      paused, gate or false, ends}
  end
end
return out
