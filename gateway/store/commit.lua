#!lua flags=allow-oom
-- commit: for each of many, write a record's next revision and its log entry, unless another node was faster.
--   KEYS[1] live HASH   [2] log STREAM   [3] gone HASH   [4] history STREAM   [5] meta HASH
--   ARGV[1] bytes the log may take; looked at after each 16th of that, never trimmed below ARGV[2] entries
--   ARGV[3] silence of all leases that counts as an outage, ms
--   then for each commit, one after the other:
--     field of live; "" writes a log entry only
--     expected revision, 0 = must not exist and never was closed
--     new value "revision JSON"; "" deletes. Without a field: key of the history row to delete; "" none
--     log entry (JSON)
--     not before, ms of Redis time; 0 = whenever
--     duration of that deadline that outages prolong, ms; 0 = none
--     tombstone "revision JSON"; "" none
--     number of history rows, and that many rows (JSON)
--   returns {now ms, why the log could not be trimmed or "", result, …}, a result for each commit in their order:
--     offset of the log entry = done
--     or {"changed", current value or ""} | {"gone", tombstone} | {"early", due ms}
--     or {"lost"}: there is no epoch, the server was emptied
--     or {"failed", message}: the server refused it; those before and after it stand by themselves
local LIVE, LOG, GONE, HISTORY, META = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, format = redis.call, string.format
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local meta = call('HMGET', META, 'epoch', 'up_since', 'beat', 'offset', 'rows', 'unlooked')
local epoch, up_since, beat = meta[1], tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
local offset, rows = tonumber(meta[4] or '0'), tonumber(meta[5] or '0')
local unlooked = tonumber(meta[6] or '0') -- bytes written since the last look at the log's size
local first, first_row = offset, rows
local budget, outage = tonumber(ARGV[1]), tonumber(ARGV[3])

-- where the arguments of a commit begin; the rows are the last
local function commit(at)
  if not epoch then return {'lost'} end

  local due = tonumber(ARGV[at + 4])
  if due > 0 then
    local duration = tonumber(ARGV[at + 5])
    if duration > 0 then
      -- an outage that no lease has reported yet: the first renewal moves up_since
      if now - beat > outage then return {'early', now + outage} end
      due = math.max(due, up_since + duration)
    end
    if now < due then return {'early', due} end
  end

  local field = ARGV[at]
  if field ~= '' then
    local current = call('HGET', LIVE, field)
    local revision = current and tonumber(string.match(current, '^%d+')) or 0
    if not current then
      local tombstone = call('HGET', GONE, field)
      if tombstone then return {'gone', tombstone} end
    end
    if revision ~= tonumber(ARGV[at + 1]) then return {'changed', current or ''} end
  elseif ARGV[at + 2] ~= '' then
    call('XDEL', HISTORY, ARGV[at + 2])
  end

  local fields = {'e', ARGV[at + 3]}
  for i = at + 8, at + 7 + ARGV[at + 7] do
    rows = rows + 1
    local key = call('XADD', HISTORY, '*', 'n', rows, 'r', ARGV[i])
    fields[#fields + 1] = 'h'
    fields[#fields + 1] = format('%.0f ', rows) .. key
  end
  call('XADD', LOG, format('%.0f-0', offset + 1), unpack(fields))
  offset = offset + 1
  unlooked = unlooked + #ARGV[at + 3]
  if field ~= '' then
    if ARGV[at + 2] ~= '' then call('HSET', LIVE, field, ARGV[at + 2]) else call('HDEL', LIVE, field) end
    if ARGV[at + 6] ~= '' then call('HSET', GONE, field, ARGV[at + 6]) end
  end
  return offset
end

-- an exact look costs 35 ms at 256 MiB of entries of 1 kB; one at samples would see the oldest entries only
local function trim()
  local bytes = call('MEMORY', 'USAGE', LOG, 'SAMPLES', 0)
  if bytes > budget then
    local keep = math.floor(call('XLEN', LOG) * budget / bytes * 0.9)
    call('XTRIM', LOG, 'MAXLEN', '~', math.max(keep, tonumber(ARGV[2])))
  end
end

local function message(failure)
  return type(failure) == 'table' and failure.err or tostring(failure)
end

local reply = {now, ''}
local at = 4
while at <= #ARGV do
  local ran, result = pcall(commit, at)
  reply[#reply + 1] = ran and result or {'failed', message(result)}
  at = at + 8 + ARGV[at + 7]
end

-- rows also moved by what failed: a number is never given twice
if rows > first_row then call('HSET', META, 'rows', format('%.0f', rows)) end
if offset == first then return reply end

local is_due = unlooked >= budget / 16
call('HSET', META, 'offset', format('%.0f', offset), 'unlooked', format('%.0f', is_due and 0 or unlooked))
if is_due then
  local ran, failure = pcall(trim)
  if not ran then reply[2] = message(failure) end
end
return reply
