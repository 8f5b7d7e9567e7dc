/// A date and a time of day, for templates that write today's date. Always given by the caller: nothing in this crate
/// reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Year, such as 2025.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
}

impl Moment {
    /// Writes the moment as Python's `strftime` does in the C locale. None where a directive is not one of those that
    /// chat templates use: `%Y %y %m %d %e %j %B %b %A %a %H %I %M %S %p %F %T %%`, with `-` for no padding.
    pub fn format(&self, pattern: &str) -> Option<String> {
        let mut text = String::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            match characters.next()? {
                '-' => text.push_str(self.directive(characters.next()?)?.trim_start_matches(['0', ' '])),
                directive => text.push_str(&self.directive(directive)?),
            }
        }
        Some(text)
    }

    fn directive(&self, directive: char) -> Option<String> {
        let month = MONTHS.get(usize::from(self.month).checked_sub(1)?)?;
        let weekday = WEEKDAYS[self.weekday()];
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year()),
            'B' => (*month).to_owned(),
            'b' => month[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{:02}", (self.hour + 11) % 12 + 1),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }

    /// Days since Sunday. Zeller's congruence, with January and February counted to the year before.
    fn weekday(&self) -> usize {
        let (month, year) = match i64::from(self.month) {
            month @ 1..=2 => (month + 12, i64::from(self.year) - 1),
            month => (month, i64::from(self.year)),
        };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let days = i64::from(self.day) + 13 * (month + 1) / 5 + year + leap_days - 1;
        days.rem_euclid(7) as usize
    }

    fn day_of_year(&self) -> u32 {
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let is_leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let leap_day = u32::from(is_leap && self.month > 2);
        let before = BEFORE.get(usize::from(self.month).saturating_sub(1)).copied().unwrap_or_default();
        before + leap_day + u32::from(self.day)
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i32, month: u8, day: u8, hour: u8) -> Moment {
        Moment { year, month, day, hour, minute: 5, second: 9 }
    }

    #[test]
    fn formats_of_chat_templates() {
        let moment = at(2024, 7, 6, 15);
        assert_eq!(moment.format("%d %b %Y").as_deref(), Some("06 Jul 2024"));
        assert_eq!(moment.format("%B %-d, %Y").as_deref(), Some("July 6, 2024"));
        assert_eq!(moment.format("%Y-%m-%d").as_deref(), Some("2024-07-06"));
        assert_eq!(
            moment.format("%A %a %j %y %e|%H:%M:%S|%I %p|%%").as_deref(),
            Some("Saturday Sat 188 24  6|15:05:09|03 PM|%")
        );
        assert_eq!(at(2024, 7, 6, 0).format("%I").as_deref(), Some("12"));
    }

    #[test]
    fn weekdays_of_known_dates() {
        for (moment, day) in [
            (at(1970, 1, 1, 0), "Thursday"),
            (at(2000, 2, 29, 0), "Tuesday"),
            (at(1900, 3, 1, 0), "Thursday"),
            (at(2023, 1, 1, 0), "Sunday"),
        ] {
            assert_eq!(moment.format("%A").as_deref(), Some(day), "{moment:?}");
        }
        assert_eq!(at(2000, 12, 31, 0).format("%j").as_deref(), Some("366"));
        assert_eq!(at(1900, 12, 31, 0).format("%j").as_deref(), Some("365"));
    }

    #[test]
    fn unknown_directives_and_months_have_no_text() {
        assert_eq!(at(2024, 1, 1, 0).format("%Q"), None);
        assert_eq!(at(2024, 1, 1, 0).format("%"), None);
        assert_eq!(at(2024, 13, 1, 0).format("%b"), None);
        assert_eq!(at(2024, 0, 0, 0).format("%b"), None);
    }
}
