//! Names that lead nowhere: of members, of files, and of folders in a member's home.

use super::ProvisionerError;

/// A member's name is lower-case letters and digits.
pub(super) fn check_member_name(name: &str) -> Result<(), ProvisionerError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !name.is_empty() && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(ProvisionerError::BadName(name.to_owned()))
    }
}

/// A file's name has neither folders nor a dot in front: such names are our own.
pub(super) fn check_file_name(name: &str) -> Result<(), ProvisionerError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(ProvisionerError::BadName(name.to_owned()))
    }
}

/// A folder below a home: names that lead nowhere else.
pub(super) fn check_folder_name(folder: &str) -> Result<(), ProvisionerError> {
    folder.split('/').try_for_each(check_file_name)
}
