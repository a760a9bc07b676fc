-- The log: events by seq, `lf` to `seq` without holes, within the limits of number, bytes and age.

-- Gives an event its place and stages it. `by` is JSON, or nil.
local function append(c, kind, by, data)
  local seq, n = c.seq + 1, c.events_n + 1
  local s = format('%d', seq)
  local text = '{"type":"' .. kind .. '","room":"' .. c.room .. '","seq":' .. s .. ',"ts":' .. c.ts
    .. (by and ',"by":' .. by .. ',"data":' or ',"data":') .. data .. '}'
  c.seq, c.s, c.events_n, c.others, c.bytes = seq, s, n, c.others + 1, c.bytes + #text
  new_events[n] = text
  new_log[2 * n - 1], new_log[2 * n] = s, text
  return seq
end

-- When an event happened, ms. Nothing before it in the text can hold such a sequence.
local function ts_of(event)
  return tonumber(match(event, '"ts":(%d+)')) or 0
end

-- Counts the events since the last time, and takes from the log's head what is past a limit. Bytes are let down by a
-- sixteenth, so that this is rare.
local function trim(c)
  local key, limits, lb = c.keys[LOG], c.limits, c.lb + c.bytes
  if c.mark < c.before then
    for _, event in ipairs(call('ZRANGEBYSCORE', key, format('%d', c.mark + 1), format('%d', c.before))) do lb = lb + #event end
  end
  local bytes = lb > limits.log_bytes and floor(limits.log_bytes / 16 * 15) or limits.log_bytes
  local oldest = c.now - limits.log_age
  local first, dropped, done = c.lf, 0, false
  while not done do
    local over = c.seq - first + 1 - limits.log_events
    local chunk = call('ZRANGE', key, dropped, dropped + max(0, min(over, 63)))
    done = #chunk == 0
    -- What the log holds counts, not what is known of it: somebody may have emptied it.
    if dropped == 0 and not done then first = tonumber(match(chunk[1], '"seq":(%d+)')) or first end
    for k = 1, #chunk do
      local event = chunk[k]
      if c.seq - first + 1 <= limits.log_events and lb <= bytes and ts_of(event) >= oldest then
        done = true
        break
      end
      first, dropped, lb = first + 1, dropped + 1, lb - #event
    end
  end
  if dropped > 0 then call('ZREMRANGEBYRANK', key, 0, dropped - 1) end
  c.lf, c.mark, c.lb, c.trimmed = first, c.seq, lb, true
end

-- B: key, by (JSON), data (JSON). Answer: seq.
OPS.B = function(c, i, at)
  local argv = c.argv
  if c.shut then
    gone(c, at)
  elseif not (happened(c, at, argv[i]) or hindered(c, at, 'broadcasts', c.guard and plain(argv[i + 1]))) then
    if c.pending then flush(c) end
    local seq = append(c, 'broadcast', argv[i + 1], argv[i + 2])
    remember(c, argv[i], seq)
    c.out[at] = seq
  end
  return i + 3
end

-- X: payload. Answer: 0.
OPS.X = function(c, i, at)
  if c.shut then
    gone(c, at)
  elseif not hindered(c, at, 'broadcasts', c.guard and match(c.argv[i], '^S([^\30]*)')) then
    c.signals = c.signals or {}
    c.signals[#c.signals + 1] = c.argv[i]
    c.out[at] = 0
  end
  return i + 1
end
