// Writes occurrences.json: (rule, zone, start) and the next ten occurrences, made without this project's code and without dateutil.
//
// Two independent implementations make each case. ical.js expands the rule on the wall clock, and Temporal places the times in the zone: its
// "compatible" is RFC 5545 §3.3.5. rrule-temporal does both. Where they differ, DISAGREEMENTS says which is right and why; anything else is an error.
//
// One difference is everywhere: for a time in a gap of the clock, rrule-temporal follows §3.3.10 and leaves the occurrence out. The contract of this
// project follows §3.3.5: the time moves forward by the length of the gap. So the two are compared without those, and the table has them.
//
//   npm install ical.js@2.2.1 rrule-temporal@2.2.8 @js-temporal/polyfill@0.5.1 && node occurrences.mjs > occurrences.json

import { Temporal } from "@js-temporal/polyfill";
import ICAL from "ical.js";
import { RRuleTemporal } from "rrule-temporal";

const NEXT = 10;
// ical.js is asked for more than NEXT, because UNTIL and the start itself take some away.
const ASKED = 40;

// Rules and the days on which they start, for each of ZONES in turn. None of the days is near a change of the clock, unless by chance.
const EVERYWHERE = [
  ["FREQ=DAILY", "2024-02-27"],
  ["FREQ=DAILY;INTERVAL=3", "2024-12-30"],
  ["FREQ=DAILY;INTERVAL=999", "2024-02-29"],
  ["FREQ=DAILY;BYMONTH=1", "2024-01-28"],
  ["FREQ=DAILY;INTERVAL=2;BYMONTH=2,7", "2024-02-25"],
  ["FREQ=DAILY;BYDAY=MO,WE,FR", "2024-05-03"],
  ["FREQ=DAILY;INTERVAL=4;BYDAY=SA,SU", "2024-05-04"],
  ["FREQ=DAILY;BYMONTHDAY=1,-1", "2024-01-31"],
  ["FREQ=DAILY;BYMONTHDAY=13;BYDAY=FR", "2024-09-13"],
  ["FREQ=DAILY;COUNT=4", "2024-06-28"],
  ["FREQ=DAILY;UNTIL=20240705T235959Z", "2024-06-30"],
  ["FREQ=WEEKLY", "2024-01-31"],
  ["FREQ=WEEKLY;INTERVAL=2", "2024-12-26"],
  ["FREQ=WEEKLY;INTERVAL=999", "2024-02-29"],
  ["FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "2024-08-29"],
  ["FREQ=WEEKLY;BYDAY=TU,SU", "2024-12-24"],
  ["FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=MO", "1997-08-05"],
  ["FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=SU", "1997-08-05"],
  ["FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,SA;WKST=SA", "2024-04-06"],
  ["FREQ=WEEKLY;INTERVAL=2;BYDAY=WE,TH;WKST=TH", "2024-04-04"],
  ["FREQ=WEEKLY;BYMONTH=1;BYDAY=MO,FR", "2024-01-26"],
  ["FREQ=WEEKLY;INTERVAL=2;BYMONTH=6,12", "2024-06-20"],
  ["FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1", "2024-04-01"],
  ["FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=-1", "2024-04-05"],
  ["FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1,-1;WKST=WE", "2024-04-03"],
  ["FREQ=WEEKLY;COUNT=6;BYDAY=TU,TH", "2024-09-03"],
  ["FREQ=WEEKLY;UNTIL=20241007T120000Z;BYDAY=MO", "2024-08-19"],
  ["FREQ=MONTHLY", "2024-01-15"],
  ["FREQ=MONTHLY", "2024-01-31"],
  ["FREQ=MONTHLY", "2024-01-30"],
  ["FREQ=MONTHLY;INTERVAL=2", "2024-12-31"],
  ["FREQ=MONTHLY;INTERVAL=18", "2024-09-10"],
  ["FREQ=MONTHLY;INTERVAL=999", "2024-01-29"],
  ["FREQ=MONTHLY;BYMONTHDAY=-1", "2024-01-31"],
  ["FREQ=MONTHLY;BYMONTHDAY=-3", "2024-01-29"],
  ["FREQ=MONTHLY;BYMONTHDAY=2,15", "2024-01-02"],
  ["FREQ=MONTHLY;BYMONTHDAY=1,-1", "2024-01-31"],
  ["FREQ=MONTHLY;BYMONTHDAY=29,30,31", "2024-01-29"],
  ["FREQ=MONTHLY;INTERVAL=18;BYMONTHDAY=10,11,12,13,14,15", "1997-09-10"],
  ["FREQ=MONTHLY;BYDAY=1FR", "2024-02-02"],
  ["FREQ=MONTHLY;BYDAY=-2MO", "2024-02-19"],
  ["FREQ=MONTHLY;INTERVAL=2;BYDAY=1SU,-1SU", "1997-09-07"],
  ["FREQ=MONTHLY;BYDAY=5WE", "2024-01-31"],
  ["FREQ=MONTHLY;BYDAY=TU", "2024-03-05"],
  ["FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "1998-02-13"],
  ["FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13", "1997-09-13"],
  ["FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2024-01-31"],
  ["FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", "1997-09-29"],
  ["FREQ=MONTHLY;BYDAY=TU,WE,TH;BYSETPOS=3", "1997-09-04"],
  ["FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=1,-1", "2024-02-01"],
  ["FREQ=MONTHLY;BYMONTHDAY=10,20,30;BYSETPOS=-1", "2024-01-30"],
  ["FREQ=MONTHLY;BYMONTH=3,9;BYMONTHDAY=31,30", "2024-03-30"],
  ["FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=29", "2024-02-29"],
  ["FREQ=MONTHLY;COUNT=5;BYMONTHDAY=31", "2024-01-31"],
  ["FREQ=MONTHLY;UNTIL=20250331T230000Z;BYMONTHDAY=-1", "2024-10-31"],
  ["FREQ=YEARLY", "2024-02-29"],
  ["FREQ=YEARLY", "2024-03-31"],
  ["FREQ=YEARLY;INTERVAL=3", "2024-02-29"],
  ["FREQ=YEARLY;INTERVAL=4", "1896-02-29"],
  ["FREQ=YEARLY;INTERVAL=100", "2000-02-28"],
  ["FREQ=YEARLY;INTERVAL=999", "2024-05-01"],
  ["FREQ=YEARLY;BYMONTH=6,7", "1997-06-10"],
  ["FREQ=YEARLY;BYMONTHDAY=31", "2024-01-31"],
  ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-1", "2024-02-29"],
  ["FREQ=YEARLY;BYMONTH=1,4;BYMONTHDAY=1,15", "2024-01-01"],
  ["FREQ=YEARLY;BYDAY=20MO", "1997-05-19"],
  ["FREQ=YEARLY;BYDAY=-1SU", "2024-12-29"],
  ["FREQ=YEARLY;BYMONTH=3;BYDAY=TH", "1997-03-13"],
  ["FREQ=YEARLY;BYMONTH=11;BYDAY=4TH", "2024-11-28"],
  ["FREQ=YEARLY;BYMONTH=3,10;BYDAY=-1SU", "2024-03-31"],
  ["FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", "1996-11-05"],
  ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=TH", "2024-02-29"],
  ["FREQ=YEARLY;BYMONTH=1,7;BYMONTHDAY=1,15;BYSETPOS=2,-1", "2024-01-15"],
  ["FREQ=YEARLY;BYMONTH=12;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2024-12-31"],
  ["FREQ=YEARLY;COUNT=3;BYMONTH=2;BYMONTHDAY=29", "2024-02-29"],
  ["FREQ=YEARLY;UNTIL=20300101T000000Z;BYMONTH=5;BYDAY=2SU", "2024-05-12"],
];
// Half an hour, three quarters, half an hour of summer time, the southern hemisphere, no summer time, and a clock that changes at midnight.
const ZONES = [
  ["Europe/Berlin", "09:00:00"], ["America/New_York", "17:30:00"], ["Asia/Kolkata", "00:00:00"], ["Australia/Lord_Howe", "01:45:00"],
  ["America/Santiago", "23:59:59"], ["Asia/Kathmandu", "06:15:00"], ["Pacific/Auckland", "02:30:00"], ["Africa/Cairo", "00:30:00"], ["UTC", "12:00:00"],
];
// Starts around a change of the clock. [zone, wall clock, rules]
const CHANGES = [
  ["Europe/Berlin", "2024-03-29T02:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU", "FREQ=MONTHLY;BYMONTHDAY=-1", "FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU"]],
  ["Europe/Berlin", "2024-10-25T02:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU", "FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU"]],
  ["Europe/London", "2024-03-30T01:00:00", ["FREQ=DAILY", "FREQ=DAILY;UNTIL=20240331T010000Z", "FREQ=DAILY;UNTIL=20240331T005959Z"]],
  ["America/New_York", "2024-03-08T02:00:00", ["FREQ=DAILY", "FREQ=DAILY;INTERVAL=2", "FREQ=YEARLY;BYMONTH=3;BYDAY=2SU"]],
  ["America/New_York", "2024-11-01T01:00:00", ["FREQ=DAILY", "FREQ=DAILY;INTERVAL=2;COUNT=4", "FREQ=YEARLY;BYMONTH=11;BYDAY=1SU"]],
  ["America/New_York", "2024-11-01T02:00:00", ["FREQ=DAILY"]],
  ["Australia/Lord_Howe", "2024-10-04T02:15:00", ["FREQ=DAILY", "FREQ=YEARLY;BYMONTH=10;BYDAY=1SU"]],
  ["Australia/Lord_Howe", "2024-04-05T01:45:00", ["FREQ=DAILY", "FREQ=YEARLY;BYMONTH=4;BYDAY=1SU"]],
  ["Pacific/Auckland", "2024-09-27T02:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU"]],
  ["Pacific/Auckland", "2024-04-05T02:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU"]],
  ["America/Sao_Paulo", "2018-11-02T00:00:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU"]],
  ["America/Sao_Paulo", "2018-02-16T23:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SA"]],
  ["America/Santiago", "2024-09-06T00:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU"]],
  ["America/Santiago", "2024-04-05T23:30:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SA"]],
  ["Africa/Cairo", "2024-04-24T00:30:00", ["FREQ=DAILY", "FREQ=MONTHLY;BYDAY=-1FR"]],
  ["Africa/Cairo", "2024-10-29T23:30:00", ["FREQ=DAILY", "FREQ=MONTHLY;BYDAY=-1TH"]],
  ["America/St_Johns", "2010-03-12T00:01:00", ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SU"]],
  ["America/St_Johns", "2010-11-04T23:30:00", ["FREQ=DAILY"]],
  ["America/Havana", "2024-03-08T00:00:00", ["FREQ=DAILY"]],
  ["America/Havana", "2024-11-01T00:30:00", ["FREQ=DAILY"]],
  ["Asia/Tehran", "2022-03-20T00:30:00", ["FREQ=DAILY", "FREQ=YEARLY;INTERVAL=1"]],
  ["Pacific/Apia", "2011-12-27T10:00:00", ["FREQ=DAILY;INTERVAL=2"]],
  ["Africa/Casablanca", "2024-03-08T02:30:00", ["FREQ=DAILY"]],
  ["Antarctica/Troll", "2024-03-29T02:00:00", ["FREQ=DAILY"]],
];

const SETS = "ical.js applies BYSETPOS only to MONTHLY with BYDAY (§3.3.10 allows it with every other BYxxx part)";
const INVALID = "ical.js makes 1 March of a 29 February that does not exist; §3.3.10: a date that does not exist is ignored";
// Rules on which the two differ: [rule, which is right, why].
const DISAGREEMENTS = [
  ["FREQ=DAILY;BYMONTHDAY=1,-1", "rrule-temporal", "ical.js ignores a negative BYMONTHDAY with DAILY"],
  ["FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1", "rrule-temporal", SETS],
  ["FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=-1", "rrule-temporal", SETS],
  ["FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1,-1;WKST=WE", "rrule-temporal", SETS],
  ["FREQ=MONTHLY;BYMONTHDAY=10,20,30;BYSETPOS=-1", "rrule-temporal", SETS],
  ["FREQ=YEARLY;BYMONTH=1,7;BYMONTHDAY=1,15;BYSETPOS=2,-1", "rrule-temporal", SETS],
  ["FREQ=YEARLY", "rrule-temporal", INVALID],
  ["FREQ=YEARLY;INTERVAL=3", "rrule-temporal", INVALID],
  ["FREQ=YEARLY;INTERVAL=4", "rrule-temporal", INVALID],
  ["FREQ=YEARLY;BYMONTHDAY=31", "rrule-temporal", "ical.js stays in the month of the start; §3.3.10: BYMONTHDAY expands YEARLY, in all months"],
  ["FREQ=YEARLY;BYDAY=20MO", "rrule-temporal", "ical.js goes on with every Monday; an example of §3.8.5.3 has 18 May 1998"],
  ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=TH", "rrule-temporal", "ical.js gives up before 2120, because 2100 has no 29 February"],
];

const rows = [];
const unexplained = [];
const explained = new Set();

EVERYWHERE.forEach(([rule, day], index) => {
  for (const offset of [0, 4]) {
    const [zone, time] = ZONES[(index + offset) % ZONES.length];
    add(rule, zone, `${day}T${time}`);
  }
  add(rule.replace(/(UNTIL=\d{8})T\d{6}Z/, "$1"), ZONES[(index + 2) % ZONES.length][0], day);
});
for (const [zone, start, rules] of CHANGES) for (const rule of rules) add(rule, zone, start);

for (const [rule] of DISAGREEMENTS) if (!explained.has(rule)) unexplained.push(`${rule}: there is no disagreement`);
for (const line of unexplained) console.error(line);
if (unexplained.length) process.exit(1);
console.log(`[\n${rows.map((row) => JSON.stringify(row)).join(",\n")}\n]`);

function add(rule, zone, start) {
  const ical = byIcal(rule, zone, start).slice(0, NEXT);
  const temporal = byRruleTemporal(rule, zone, start).slice(0, NEXT);
  const known = DISAGREEMENTS.find(([text]) => text === rule);
  if (String(byIcal(rule, zone, start, false).slice(0, NEXT)) !== String(temporal)) {
    if (!known) unexplained.push(`${rule} from ${start} ${zone}\n  ical.js        ${ical}\n  rrule-temporal ${temporal}`);
    else explained.add(rule);
  }
  rows.push({ rule, zone, start, next: known && known[1] === "rrule-temporal" ? temporal : ical });
}

function byIcal(rule, zone, start, withGaps = true) {
  // ical.js computes without a zone, so a time of UNTIL is compared here, as an instant.
  const until = /;UNTIL=(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})Z/.exec(rule);
  const iterator = ICAL.Recur.fromString(until ? rule.replace(until[0], "") : rule).iterator(ICAL.Time.fromString(start));
  const walls = [];
  for (let time = iterator.next(); time && walls.length < ASKED && time.year <= 9999; time = iterator.next()) walls.push(time.toString());
  const later = walls.filter((wall) => wall > start && (withGaps || !start.includes("T") || shown(placed(wall, zone), zone) === wall));
  if (!start.includes("T")) return later;
  const last = until ? `${until[1]}-${until[2]}-${until[3]}T${until[4]}:${until[5]}:${until[6]}Z` : "9999-12-31T23:59:59Z";
  const first = placed(start, zone);
  return later.map((wall) => placed(wall, zone)).filter((time) => after(time, first) && !after(time, last));
}

function byRruleTemporal(rule, zone, start) {
  const isDay = !start.includes("T");
  const begin = Temporal.PlainDateTime.from(start).toZonedDateTime(isDay ? "UTC" : zone, { disambiguation: "compatible" });
  const stamp = start.replace(/[-:]/g, "");
  const lines = `DTSTART;${isDay ? "VALUE=DATE" : `TZID=${zone}`}:${stamp}\nRRULE:${rule}`;
  const times = [];
  try {
    new RRuleTemporal({ rruleString: lines, maxIterations: 20_000 }).all((time, index) => times.push(time) && index < NEXT + 2);
  } catch (error) {
    if (!error.message.startsWith("Maximum iterations")) throw error; // what it found until then counts
  }
  return times
    .filter((time) => time.epochMilliseconds > begin.epochMilliseconds && time.year <= 9999)
    .map((time) => (isDay ? time.toPlainDate() : time.toInstant()).toString());
}

function placed(wall, zone) {
  return Temporal.PlainDateTime.from(wall).toZonedDateTime(zone, { disambiguation: "compatible" }).toInstant().toString();
}

function shown(time, zone) {
  return Temporal.Instant.from(time).toZonedDateTimeISO(zone).toPlainDateTime().toString({ smallestUnit: "second" });
}

function after(time, other) {
  return Temporal.Instant.compare(time, other) > 0;
}
