-- Single flight: of jobs that would make the same answer at the same moment one, the leader, runs; the others follow
-- it. A follower is queued without a message and without a worker. `dj:flight:{key}` names the leader while it runs,
-- also while it waits for another worker after its own was lost, and for a while after it succeeded; the followers
-- are in `dj:flight:{key}:followers`. They are sent again when the flight is over, bearing the leader whose answer is
-- theirs if there is one.

-- How long (ms) the leader is named after it succeeded: for jobs that looked for a stored answer just before.
local LANDED = 30000
-- Followers sent in one step, and in one message.
local STEP, CHUNK = 500, 25

local function flight_key(key) return 'dj:flight:' .. key end

-- Send some followers; the housekeepers send the rest.
local function send_followers(key, leader, now)
  local list, groups = flight_key(key) .. ':followers', {}
  for _, id in ipairs(redis.call('LPOP', list, STEP) or {}) do
    local f = fields(id)
    if f and f.status == 'queued' and redis.call('HGET', job_key(id), 'follows') == key then
      redis.call('HDEL', job_key(id), 'follows')
      if leader ~= '' then redis.call('HSET', job_key(id), 'answer', leader) end
      add_to_group(groups, id, f)
    end
  end
  send_groups(TEMPLATE, groups, CHUNK, now, true)
  if redis.call('EXISTS', list) == 1 then
    redis.call('HSET', 'dj:landing', key, leader)
  else
    redis.call('HDEL', 'dj:landing', key)
  end
end

-- A job leads no more: it has ended, or waits for something its followers need not wait for.
end_flight = function(id, has_succeeded, now)
  local key = redis.call('HGET', job_key(id), 'leads')
  if not key then return end
  redis.call('HDEL', job_key(id), 'leads')
  if redis.call('GET', flight_key(key)) ~= id then return end
  if has_succeeded then
    redis.call('SET', flight_key(key), id, 'PX', LANDED)
  else
    redis.call('DEL', flight_key(key))
  end
  if redis.call('EXISTS', flight_key(key) .. ':followers') == 1 then
    send_followers(key, has_succeeded and id or '', now)
  end
end

-- Whether somebody else makes the answer a job is after, or has just made it: 'following' or 'answered', and who.
-- An answer made before `oldest` (ms) is not wanted.
local function find_leader(id, key, oldest)
  local leader = redis.call('GET', flight_key(key))
  if not leader or leader == id then return nil end
  local l = redis.call('HMGET', job_key(leader), 'leads', 'status', 'ended_at')
  if l[1] == key then return 'following', leader end
  if l[2] == 'succeeded' and tonumber(l[3]) >= oldest and redis.call('EXISTS', outcome_key(leader)) == 1 then
    return 'answered', leader
  end
end

-- Let a job wait for another's answer.
local function follow(id, f, key)
  let_go(id, f.owner)
  redis.call('HSET', job_key(id), 'follows', key)
  redis.call('RPUSH', flight_key(key) .. ':followers', id)
end

-- Let a job make an answer that others may follow, unless somebody else does.
local function lead(id, key)
  local leader = redis.call('GET', flight_key(key))
  if leader and leader ~= id and redis.call('HGET', job_key(leader), 'leads') == key then return end
  redis.call('SET', flight_key(key), id)
  redis.call('HSET', job_key(id), 'leads', key)
end

local function client_parked(client) return 'dj:client:' .. client .. ':parked' end

-- Keep a job until its client may spend again.
local function park_client(id, f, ends, now)
  end_flight(id, false, now)
  redis.call('RPUSH', client_parked(f.client), id)
  redis.call('SADD', 'dj:waiting_clients', f.client)
  redis.call('HSET', job_key(id), 'parked', '1', 'wait', 'budget_exhausted', 'until', ms(ends))
  if not f.started_at then redis.call('ZADD', 'dj:expiring', f.expires_at, id) end
end
