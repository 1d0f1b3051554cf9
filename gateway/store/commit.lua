#!lua flags=allow-oom
-- commit: write a record's next revision and its log entry, if nobody else did first.
--   KEYS[1] live HASH   [2] log STREAM   [3] gone HASH   [4] history STREAM   [5] meta HASH
--   ARGV[1] field of live; "" writes a log entry only
--   ARGV[2] expected revision, 0 = must not exist and never was closed
--   ARGV[3] new value "revision JSON"; "" deletes
--   ARGV[4] log entry (JSON)
--   ARGV[5] not before, ms of Redis time; 0 = whenever
--   ARGV[6] duration of that deadline that outages prolong, ms; 0 = none
--   ARGV[7] tombstone "revision JSON"; "" none
--   ARGV[8] bytes the log may take; trimmed every 256th entry, never below ARGV[9] entries
--   ARGV[10] silence of all leases that counts as an outage, ms
--   ARGV[11…] history rows (JSON)
--   returns {"done", now ms, offset, row number, row key, …}
--        or {"changed", now ms, current value or ""} | {"gone", now ms, tombstone} | {"early", now ms, due ms}
--        or {"lost", now ms}: there is no epoch, the server was emptied
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', KEYS[5], 'epoch', 'up_since', 'beat')
if not known[1] then return {'lost', now} end

local due = tonumber(ARGV[5])
if due > 0 then
  local duration = tonumber(ARGV[6])
  if duration > 0 then
    local outage = tonumber(ARGV[10])
    -- an outage that no lease has reported yet: whoever renews first moves up_since
    if now - tonumber(known[3] or '0') > outage then return {'early', now, now + outage} end
    due = math.max(due, tonumber(known[2] or '0') + duration)
  end
  if now < due then return {'early', now, due} end
end

local field, expected = ARGV[1], tonumber(ARGV[2])
if field ~= '' then
  local current = redis.call('HGET', KEYS[1], field)
  local revision = current and tonumber(string.match(current, '^%d+')) or 0
  if not current then
    local tombstone = redis.call('HGET', KEYS[3], field)
    if tombstone then return {'gone', now, tombstone} end
  end
  if revision ~= expected then return {'changed', now, current or ''} end
end

local reply = {'done', now, 0}
local fields = {'e', ARGV[4]}
for i = 11, #ARGV do
  local number = redis.call('HINCRBY', KEYS[5], 'rows', 1)
  local key = redis.call('XADD', KEYS[4], '*', 'n', number, 'r', ARGV[i])
  reply[#reply + 1] = number
  reply[#reply + 1] = key
  fields[#fields + 1] = 'h'
  fields[#fields + 1] = string.format('%.0f ', number) .. key
end

local offset = redis.call('HINCRBY', KEYS[5], 'offset', 1)
reply[3] = offset
redis.call('XADD', KEYS[2], string.format('%.0f-0', offset), unpack(fields))
if field ~= '' then
  if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], field, ARGV[3]) else redis.call('HDEL', KEYS[1], field) end
  if ARGV[7] ~= '' then redis.call('HSET', KEYS[3], field, ARGV[7]) end
end

if offset % 256 == 0 then
  local bytes = redis.call('MEMORY', 'USAGE', KEYS[2])
  local budget = tonumber(ARGV[8])
  if bytes > budget then
    local keep = math.floor(redis.call('XLEN', KEYS[2]) * budget / bytes * 0.9)
    redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', math.max(keep, tonumber(ARGV[9])))
  end
end
return reply
