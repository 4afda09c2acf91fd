-- Send the next jobs of a batch to the workers, in chunks of the given sizes, or smaller ones where a chunk's jobs are
-- of several queues. Jobs that somebody canceled meanwhile are passed over. Returns the number released so far, or -1
-- if the pointer moved under the caller.
-- ARGV: now, batch, expected pointer, chunk sizes…
local now, batch, pointer = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local key = batch_key(batch)
local b = redis.call('HMGET', key, 'status', 'released', 'total', 'priority')
if not b[1] or b[1] ~= 'in_progress' or tonumber(b[2]) ~= pointer then return -1 end
local sizes, wanted = {}, 0
for i = 4, #ARGV do
  sizes[#sizes + 1] = tonumber(ARGV[i])
  wanted = wanted + tonumber(ARGV[i])
end
-- LRANGE would take the range 0 to -1 for the whole list.
local ids = wanted > 0 and redis.call('LRANGE', key .. ':jobs', pointer, pointer + wanted - 1) or {}
local at = 1
for _, size in ipairs(sizes) do
  local groups, index = {}, {}
  for i = at, math.min(at + size - 1, #ids) do
    local job = redis.call('HMGET', job_key(ids[i]), 'status', 'tries', 'queue')
    -- One that has `tries` was canceled, then retried, and so has been sent already.
    if job[1] == 'queued' and not job[2] then
      index[#index + 1] = 0
      index[#index + 1] = ids[i]
      add_to_group(groups, ids[i], {queue = job[3], priority = b[4], batch = batch})
    end
  end
  if #index > 0 then redis.call('ZADD', 'dj:jobs', unpack(index)) end
  send_groups(groups, size, now)
  at = at + size
end
pointer = pointer + #ids
redis.call('HSET', key, 'released', pointer)
if pointer >= tonumber(b[3]) then redis.call('SREM', 'dj:releasing', batch) end
return pointer
